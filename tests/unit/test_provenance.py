import subprocess
import sys
from pathlib import Path

import pytest

from conceptbench import provenance
from conceptbench.errors import ConceptBenchError
from conceptbench.provenance import describe_code, describe_machine, write_job_record, write_manifest
from conceptbench.tables import read_json, sha256_file


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


def test_code_in_and_outside_a_checkout(tmp_path: Path) -> None:
    assert describe_code(tmp_path) == {"revision": None, "dirty": None, "lock": None}
    git(tmp_path, "init", "-q")
    (tmp_path / "requirements.lock").write_text("numpy==2.4.6\n")
    git(tmp_path, "add", "requirements.lock")
    git(tmp_path, "commit", "-q", "-m", "first")
    code = describe_code(tmp_path)
    assert len(code["revision"]) == 40 and code["dirty"] is False
    assert code["lock"] == sha256_file(tmp_path / "requirements.lock")
    (tmp_path / "requirements.lock").write_text("numpy==2.4.5\n")
    assert describe_code(tmp_path)["dirty"] is True


def test_a_job_belongs_to_the_code_that_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "-m", "first", "--allow-empty")
    provenance.code_at_start.cache_clear()
    monkeypatch.setattr(provenance, "_checkout", lambda: tmp_path)
    began = dict(provenance.code_at_start())
    write_job_record(tmp_path / "quick.json", rule="adapt", gpus=0, seconds=1)
    git(tmp_path, "commit", "-q", "-m", "second", "--allow-empty")
    write_job_record(tmp_path / "slow.json", rule="adapt", gpus=0, seconds=1)
    quick, slow = read_json(tmp_path / "quick.json"), read_json(tmp_path / "slow.json")
    provenance.code_at_start.cache_clear()
    assert quick["code"] == slow["code"] == began
    assert "code_at_end" not in quick
    assert slow["code_at_end"]["revision"] not in (None, began["revision"])


@pytest.mark.parametrize(
    ("name", "dirty"),
    [
        *(("src/conceptbench/new.py", True), ("scripts/new.py", True), ("rules/new.smk", True)),
        *(("notes.txt", False), ("results/table.csv", False), ("src/conceptbench/__pycache__/new.pyc", False)),
    ],
)
def test_code_that_git_does_not_know_is_a_change(tmp_path: Path, name: str, dirty: bool) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("__pycache__/\n")
    git(tmp_path, "add", ".gitignore")
    git(tmp_path, "commit", "-q", "-m", "first")
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).touch()
    assert describe_code(tmp_path)["dirty"] is dirty


def test_manifest_holds_digests_versions_and_machine(tmp_path: Path) -> None:
    source, result = tmp_path / "in.txt", tmp_path / "out.txt"
    source.write_text("in")
    result.write_text("out")
    path = tmp_path / "manifest.json"
    options = {"outputs": {"result": result}, "inputs": {"source": source}, "spec": {"k": 8}}
    manifest = write_manifest(path, **options, extra={"images": 3})
    assert read_json(path) == manifest
    assert manifest["outputs"]["result"] == {"path": str(result), "sha256": sha256_file(result), "bytes": 3}
    assert manifest["images"] == 3 and manifest["versions"]["numpy"] and manifest["time"].endswith("+00:00")
    assert manifest["machine"]["cores"] >= 1 and manifest["machine"]["memory_mib"] > 100
    with pytest.raises(ConceptBenchError, match="extra key"):
        write_manifest(path, **options, extra={"spec": {}})
    source.unlink()
    with pytest.raises(ConceptBenchError, match=r"input 'source' .* is not a file"):
        write_manifest(path, **options)


def test_machine_never_imports_torch() -> None:
    lines = [
        "import sys",
        "from conceptbench.provenance import describe_machine, library_versions",
        "assert library_versions()['torch'] and describe_machine()['gpus'] is None",
        "assert 'torch' not in sys.modules and 'zarr' not in sys.modules",
    ]
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)
    assert describe_machine()["python"].startswith("3.")
