"""The rule that learns dictionaries, in one process and in two that the configuration asks for."""

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from activations_standins import StandInBackbone
from script_tools import loaded

from conceptbench.activations import record
from conceptbench.data import open_dataset, prepare_dataset
from conceptbench.data.spec import DatasetSpec
from conceptbench.dictionaries import load_dictionary
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import write_json

_SHARED = {"width": 6, "lr": 0.01, "batch_size": 32, "warmup_steps": 2}
METHODS = {
    "topk": {"method": "topk", "k": 2, **_SHARED},
    "relu": {"method": "relu-l1", "l1": 0.05, **_SHARED},
    "alike": {"method": "batch-topk", "k": 2, **_SHARED},
}
SPEC = {
    **{"backbone": "counter", "blocks": [1], "seed": 0, "images": None, "halves": ["relu"]},
    **{"methods": METHODS, "seeds_of": {"topk": [0, 1], "relu": [0], "alike": [0]}},
}


@pytest.fixture(scope="module")
def together() -> ModuleType:
    return loaded("_learning_together")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, a backbone's card and a store, with what a rule gets."""
    folder = tmp_path_factory.mktemp("together")
    prepare_dataset(DatasetSpec("scenes", "scenes", sizes={"train": 96, "val": 24}), folder / "data", None, 0)
    write_json({"digest": StandInBackbone.digest}, folder / "backbone" / "card.json")
    (folder / "stamp.json").write_text("{}")
    dataset = open_dataset(folder / "data")
    record(StandInBackbone(), dataset, [1], folder / "store", work=folder / "work", progress=False)
    return folder


class Inputs(dict[str, Any]):
    """Snakemake's inputs: named, and in a row without the names."""

    def __iter__(self) -> Any:
        return iter(self.values())


def job_in(made: Path, out: str, gpus: int | None, granted: int, device: str = "cpu") -> SimpleNamespace:
    section = {} if gpus is None else {"gpus": gpus}
    files = {"dataset": "data/card.json", "backbone": "backbone/card.json", "activations": "store/manifest.json"}
    return SimpleNamespace(
        config={"device": device, "dictionaries": section},
        resources={"gpu": granted},
        input=Inputs({name: str(made / file) for name, file in {**files, "stamp": "stamp.json"}.items()}),
        output=SimpleNamespace(manifest=str(made / out / "manifest.json")),
    )


def test_two_processes_write_what_one_writes(
    together: ModuleType, made: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    found = {}
    for out, gpus in (("one", 1), ("two", 2)):
        job = job_in(made, out, gpus, granted=gpus)
        request = together.Request.of(job, SPEC)
        found[out] = together.learn(request, together.processes_of(job), 2)
        cards = sorted(str(Path(path).relative_to(made / out)) for path in found[out].values())
        assert cards == sorted(str(path.relative_to(made / out)) for path in (made / out).rglob("card.json"))
        assert not list((made / out).rglob("*.safetensors.partial"))
    assert found["one"].keys() == found["two"].keys() == {
        *(f"1.{name}" for name in ("topk.0", "topk.1", "relu.0", "alike.0", "relu.half0", "relu.half1")),
    }  # fmt: skip
    first, second = (load_dictionary(Path(found["one"][f"1.relu.half{half}"]).parent) for half in (0, 1))
    assert not np.allclose(first.atoms, second.atoms), "halves of the images are learnt apart"
    for name, card in found["one"].items():
        one, two = (load_dictionary(Path(path).parent) for path in (card, found["two"][name]))
        np.testing.assert_allclose(two.atoms, one.atoms, atol=1e-3, err_msg=name)
        assert two.card["training"]["tokens"] == one.card["training"]["tokens"]
    printed = capfd.readouterr()
    assert "learning in 2 processes on cpu" in printed.out
    assert printed.err.count(" 0.00/") == 6, "three parts in each run, whose bars one process begins"


def test_learning_together_goes_on_where_it_was(
    together: ModuleType, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one process has saved is not learnt again by two, which all ask the first."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    request = together.Request.of(job_in(made, "again", 2, granted=2), SPEC)
    alone = together.learn(request, 1, 1)
    times = {path: Path(path).stat().st_mtime_ns for path in alone.values()}
    assert together.learn(request, 2, 2) == alone
    assert {path: Path(path).stat().st_mtime_ns for path in alone.values()} == times
    request.ledger().close()
    assert not (made / "again" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("gpus", "granted", "processes"), [(None, 1, 1), (1, 1, 1), (4, 4, 4), (4, 2, 2), (4, 0, 1), (1, 4, 1)]
)
def test_there_are_as_many_processes_as_gpus_that_were_asked_for_and_granted(
    together: ModuleType, made: Path, gpus: int | None, granted: int, processes: int, capsys: Any
) -> None:
    assert together.processes_of(job_in(made, "none", gpus, granted)) == processes
    said = f"dictionaries.gpus is {gpus}, but {granted} were granted: learning in {processes} process(es)\n"
    assert capsys.readouterr().out == (said if (gpus or 1) > processes else "")


def test_one_numbered_gpu_is_not_shared(together: ModuleType) -> None:
    request = together.Request(SPEC, {}, "key", "out", None, "cuda:1")
    with pytest.raises(
        ConceptBenchError, match=r"device: cuda:1 is one GPU, but dictionaries\.gpus asks for 2; set dev"
    ):
        together.learn(request, 2, 2)


def test_an_error_of_the_processes_is_that_of_the_job(
    together: ModuleType, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    job = job_in(made, "small", 2, granted=2)
    too_large = {**SPEC, "methods": {"topk": {**METHODS["topk"], "batch_size": 4096}}, "halves": []}
    with pytest.raises(ConceptBenchError, match="batch"):
        together.learn(together.Request.of(job, too_large), 2, 2)
    assert not (made / "small" / "block1").exists()
