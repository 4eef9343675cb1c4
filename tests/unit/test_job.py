"""What scripts share: which device a job gets, and what it says when a GPU is asked for and absent."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from conceptbench.errors import ConceptBenchError

SCRIPT = Path(__file__).parents[2] / "scripts" / "_job.py"


@pytest.fixture(scope="module")
def shared() -> ModuleType:
    spec = importlib.util.spec_from_file_location("shared_by_scripts", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let torch see so many GPUs."""

    def show(gpus: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)

    return show


def granted(device: str = "auto", **resources: Any) -> SimpleNamespace:
    return SimpleNamespace(config={"device": device}, resources=resources)


@pytest.mark.parametrize(
    ("resources", "gpus"),
    [
        *(({}, 0), ({"gpu": 0}, 0), ({"gpu": 2}, 2), ({"gpu": 0, "gres": "gpu:1"}, 1), ({"gres": "gpu:a100:4"}, 4)),
        *(({"gres": "gpu"}, 1), ({"gres": "gpu:a100"}, 1), ({"gpu": 0, "gres": "shard:3"}, 0)),
    ],
)
def test_gpus_are_granted_by_either_name(shared: ModuleType, resources: dict[str, Any], gpus: int) -> None:
    assert shared.gpus_granted(resources) == gpus


def test_auto_takes_a_gpu_that_was_granted_and_is_there(shared: ModuleType, machine: Any) -> None:
    for seen, resources, device in ((1, {"gpu": 1}, "cuda"), (0, {"gpu": 1}, "cpu"), (1, {"gpu": 0}, "cpu")):
        machine(seen)
        assert shared.device(granted(**resources)) == device
    machine(1)
    assert shared.device(granted(gpu=0, gres="gpu:1")) == "cuda"


def test_gpu_asked_for_and_absent_is_one_sentence(shared: ModuleType, machine: Any) -> None:
    machine(0)
    with pytest.raises(ConceptBenchError, match="for device cuda, but this machine shows no GPU; set device: auto"):
        shared.device(granted("cuda", gpu=1))
    machine(2)
    assert shared.device(granted("cuda:1")) == "cuda:1"
    with pytest.raises(ConceptBenchError, match="asks for device cuda:2, but this machine shows 2 GPUs"):
        shared.device(granted("cuda:2"))


def test_record_of_a_job_lies_beside_its_results(shared: ModuleType) -> None:
    log = Path("results/smoke/logs/adapt/flora.maple.log")
    assert shared._record_of(log) == Path("results/smoke/jobs/adapt/flora.maple.json")
