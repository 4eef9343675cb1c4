"""The claims page in the documents: where it comes from, and that it has today's statements."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

from conceptbench.measures.claims import STATEMENTS

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(scope="module")
def publish() -> ModuleType:
    spec = importlib.util.spec_from_file_location("publish", DOCS / "publish.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_claims_page_is_that_of_the_study(
    publish: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "claims.md"
    page.write_text("old")
    publish.publish_claims(tmp_path / "study", page)
    assert page.read_text() == "old" and "claims.md stays as it is" in capsys.readouterr().out
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "claims.md").write_text("new")
    publish.publish_claims(tmp_path / "study", page)
    assert page.read_text() == "new"


@pytest.mark.skipif(not (DOCS / "claims.md").is_file(), reason="the page is made by a run of examples/remapping.yaml")
@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.id)
def test_the_published_page_has_todays_statements(statement: object) -> None:
    """When this fails, run examples/remapping.yaml again, then `make docs`."""
    text = (DOCS / "claims.md").read_text(encoding="utf-8")
    for part in ("text", "paper", "rule", "control"):
        assert getattr(statement, part) in text
