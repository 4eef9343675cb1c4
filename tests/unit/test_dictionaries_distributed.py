"""Data-parallel training equals training in one process, up to the order of sums."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import parallel_tools
import pytest

from conceptbench.dictionaries import load_dictionary
from conceptbench.dictionaries import topk as topk_module
from conceptbench.dictionaries.distributed import group, in_group
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
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    return folder


def test_every_process_ends_with_the_same_dictionary(parallel: Path) -> None:
    first, second = (load_dictionary(parallel / str(rank)) for rank in range(PROCESSES))
    np.testing.assert_array_equal(first.atoms, second.atoms)
    np.testing.assert_array_equal(first.encoder, second.encoder)


def test_two_processes_learn_what_one_learns(parallel: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topk_module, "_engine", lambda parameters, spec, _: TorchTopK(parameters, spec))
    one, two = parallel_tools.train(), load_dictionary(parallel / "0")
    for name in ("atoms", "encoder", "encoder_bias", "decoder_bias"):
        np.testing.assert_allclose(getattr(two, name), getattr(one, name), atol=2e-4, err_msg=name)
    assert two.card["metrics"]["fvu"] == pytest.approx(one.card["metrics"]["fvu"], rel=1e-3)
    assert two.card["training"]["steps"] == parallel_tools.TOKENS // 250
    assert 0 < one.card["metrics"]["fvu"] < 0.9


def test_outside_of_torchrun_the_reason_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    assert not in_group()
    with pytest.raises(ConceptBenchError, match=r"RANK is not set; start the processes with torchrun"), group():
        pass
