"""What scripts share: the parameters and the device of a job, what it says when either is amiss."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from script_tools import SCRIPTS, loaded

from conceptbench.errors import ConceptBenchError


@pytest.fixture(scope="module")
def shared() -> ModuleType:
    return loaded("_job")


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


def test_a_granted_gpu_that_is_not_there_is_said_in_the_log(
    shared: ModuleType, machine: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    machine(0)
    assert shared.device(granted(gpu=1)) == "cpu"
    assert capsys.readouterr().out == "granted 1 GPU, but torch sees none: computing on the CPU\n"
    assert shared.device(granted(gpu=0)) == "cpu"
    machine(1)
    assert shared.device(granted(gpu=1)) == "cuda"
    assert capsys.readouterr().out == ""


def stamped(stamp: Path, expected: bytes) -> SimpleNamespace:
    digests = {stamp.stem: hashlib.sha256(expected).hexdigest()}
    return SimpleNamespace(input=SimpleNamespace(stamp=str(stamp)), config={"stamps": digests})


def test_parameters_are_those_that_the_job_was_planned_with(shared: ModuleType, tmp_path: Path) -> None:
    stamp = tmp_path / "adapt.flora.maple.json"
    stamp.write_bytes(b'{"k": 8}')
    assert shared.read_stamp(stamped(stamp, b'{"k": 8}')) == {"k": 8}
    said = f"parameters in {stamp} are no longer those of this run"
    with pytest.raises(ConceptBenchError, match=said):
        shared.read_stamp(stamped(stamp, b'{"k": 9}'))
    stamp.unlink()
    with pytest.raises(ConceptBenchError, match=said):
        shared.read_stamp(stamped(stamp, b'{"k": 8}'))


RUN_A_JOB = """
import hashlib, sys
from pathlib import Path
from types import SimpleNamespace
from _job import job

stamp = Path("stamps/adapt.json")
planned = hashlib.sha256(stamp.read_bytes()).hexdigest()
names = {"rule": "adapt", "log": "results/x/logs/adapt.log", "threads": 1, "resources": {}}
snakemake = SimpleNamespace(**names, input=SimpleNamespace(stamp=str(stamp)), config={"stamps": {"adapt": planned}})
with job(snakemake) as spec:
    if sys.argv[1] == "changed":
        stamp.write_text('{"k": 9}')
"""


@pytest.mark.parametrize("meanwhile", ["kept", "changed"])
def test_a_job_whose_parameters_change_while_it_runs_fails(tmp_path: Path, meanwhile: str) -> None:
    for folder in ("stamps", "results/x/logs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "stamps" / "adapt.json").write_text('{"k": 8}')
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS)}
    command = [sys.executable, "-c", RUN_A_JOB, meanwhile]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == (meanwhile == "kept"), done.stderr
    assert ("Error in rule adapt: The parameters in" in done.stderr) == (meanwhile == "changed")
    assert (tmp_path / "results/x/jobs/adapt.json").exists() == (meanwhile == "kept")
