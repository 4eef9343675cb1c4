"""Data-parallel training equals training in one process, up to the order of sums."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import parallel_tools
import pytest
import torch

from conceptbench.dictionaries import load_dictionary
from conceptbench.dictionaries import relu_l1 as relu_module
from conceptbench.dictionaries import topk as topk_module
from conceptbench.dictionaries import train as train_module
from conceptbench.dictionaries.distributed import group, in_group
from conceptbench.dictionaries.divided import DataParallelReluL1
from conceptbench.dictionaries.learner import Parameters
from conceptbench.dictionaries.relu_l1_torch import TorchReluL1
from conceptbench.dictionaries.topk_torch import TorchTopK
from conceptbench.errors import ConceptBenchError

PROCESSES = 2


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def start(rank: int, port: int, folder: Path) -> "subprocess.Popen[bytes]":
    """One process, with the environment that torchrun gives it."""
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(PROCESSES),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    return subprocess.Popen([sys.executable, str(Path(parallel_tools.__file__)), str(folder)], env=environment)


@pytest.fixture(scope="module")
def parallel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("parallel")
    port = free_port()
    processes = [start(rank, port, folder) for rank in range(PROCESSES)]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    return folder


@pytest.mark.parametrize("name", [*parallel_tools.SPECS, "again"])
def test_every_process_ends_with_the_same_dictionary(parallel: Path, name: str) -> None:
    first, second = (load_dictionary(parallel / name / str(rank)) for rank in range(PROCESSES))
    np.testing.assert_array_equal(first.atoms, second.atoms)
    np.testing.assert_array_equal(first.encoder, second.encoder)


@pytest.mark.parametrize("name", list(parallel_tools.SPECS))
def test_two_processes_learn_what_one_learns(parallel: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(train_module, "SAMPLE_TOKENS", parallel_tools.CHUNK)
    monkeypatch.setattr(topk_module, "_engine", lambda parameters, spec, _: TorchTopK(parameters, spec))
    monkeypatch.setattr(relu_module, "_engine", lambda parameters, spec, _: TorchReluL1(parameters, spec))
    one, two = parallel_tools.train(name), load_dictionary(parallel / name / "0")
    for part in ("atoms", "encoder", "encoder_bias", "decoder_bias"):
        np.testing.assert_allclose(getattr(two, part), getattr(one, part), atol=2e-4, err_msg=part)
    assert two.card["metrics"]["fvu"] == pytest.approx(one.card["metrics"]["fvu"], rel=1e-3)
    assert two.card["training"]["steps"] == parallel_tools.TOKENS // 250
    assert 0 < one.card["metrics"]["fvu"] < 0.9


def test_all_go_on_from_the_checkpoint_that_the_first_process_wrote(parallel: Path) -> None:
    whole, again = (load_dictionary(parallel / name / "0") for name in ("relu-l1", "again"))
    np.testing.assert_allclose(again.atoms, whole.atoms, atol=2e-4)
    assert again.card["training"]["tokens"] == whole.card["training"]["tokens"] == parallel_tools.TOKENS
    noted = (parallel / "checkpoints.txt").read_text().splitlines()
    assert noted[:2] == ["0 wrote 2000", "0 wrote 4000"]
    assert sorted(noted[2:4]) == ["0 read 4000", "1 read 4000"], "at the kill, after 4,500 tokens"
    assert {line.split()[0] for line in noted[4:]} == {"0"} and noted[-1] == "0 wrote 6000"


def test_a_batch_smaller_than_the_group_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.distributed.get_world_size", lambda: 300)
    parameters = Parameters(*(torch.zeros(shape) for shape in ((4, 2), (4, 2), (4,), (2,))))
    with pytest.raises(ConceptBenchError, match="'relu-l1' has batches of 250 tokens, which 300 processes cannot"):
        DataParallelReluL1(parameters, parallel_tools.SPECS["relu-l1"])  # type: ignore[arg-type]


def test_outside_of_torchrun_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert not in_group()
    with pytest.raises(ConceptBenchError, match=r"RANK is not set; start the processes with torchrun"), group():
        pass
