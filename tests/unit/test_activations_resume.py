"""kill -9 at any moment, then the same call: it goes on at the first missing shard and writes equal bytes."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from activations_standins import StandInBackbone, StandInDataset, a_shard, record_small

from conceptbench.activations import record, verify
from conceptbench.activations.layout import MANIFEST, STORE
from conceptbench.activations.write import publish

SLOW_RECORDING = """
import sys
from pathlib import Path
from activations_standins import StandInBackbone, StandInDataset
from conceptbench.activations import record
folder = Path(sys.argv[1])
record(StandInBackbone(delay=0.1), StandInDataset(), [1, 4], folder / "out",
       work=folder / "work", batch_size=5, shard_images=16, progress=False)
"""


def shard_bytes(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes() for path in sorted((out / STORE).rglob("0")) if path.is_file()
    }


def finished_shards(work: Path) -> int:
    try:
        return len(json.loads((work / "journal.json").read_text())["shards"])
    except FileNotFoundError:
        return 0


def test_kill_minus_nine_then_resume_writes_equal_bytes(tmp_path: Path) -> None:
    plain = record_small(tmp_path / "plain")
    folder = tmp_path / "killed"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", SLOW_RECORDING, str(folder)], env=environment)
    deadline = time.monotonic() + 60
    while finished_shards(folder / "work") < 1 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = finished_shards(folder / "work")
    assert done in {1, 2}
    assert not any((folder / "out").iterdir())
    before = {path: path.stat().st_mtime_ns for path in (folder / "work" / STORE).rglob("c/0/0/0")}
    backbone = StandInBackbone()
    options = {"work": folder / "work", "batch_size": 5, "shard_images": 16, "progress": False}
    manifest = record(backbone, StandInDataset(), [1, 4], folder / "out", **options)
    assert manifest["resumed_shards"] == done
    assert backbone.passes == 3 * (3 - done)
    assert shard_bytes(folder / "out") == shard_bytes(plain)
    assert len(before) == 2
    assert all(
        (folder / "out" / path.relative_to(folder / "work")).stat().st_mtime_ns == before[path] for path in before
    )
    verify(folder / "out")


@pytest.fixture
def interrupted(tmp_path: Path) -> Path:
    """A work folder with two finished shards of three."""
    backbone = StandInBackbone()
    backbone.planted[39, 4] = float("nan")
    with pytest.raises(Exception, match="image 39"):
        options = {"work": tmp_path / "work", "batch_size": 5, "shard_images": 16, "progress": False}
        record(backbone, StandInDataset(), [1, 4], tmp_path / "out", **options)
    assert finished_shards(tmp_path / "work") == 2
    return tmp_path


def resume(folder: Path, backbone: StandInBackbone) -> dict:
    options = {"work": folder / "work", "batch_size": 5, "shard_images": 16, "progress": False}
    return record(backbone, StandInDataset(), [1, 4], folder / "out", **options)


def test_another_specification_discards_the_work_with_a_logged_line(
    interrupted: Path, caplog: pytest.LogCaptureFixture
) -> None:
    backbone = StandInBackbone()
    backbone.digest = "e" * 8
    with caplog.at_level(logging.WARNING):
        manifest = resume(interrupted, backbone)
    assert manifest["resumed_shards"] == 0
    assert "discarding" in caplog.text
    assert backbone.passes == 9


def test_a_damaged_finished_shard_is_recorded_again(interrupted: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = interrupted / "work" / STORE / "block1" / "c" / "0" / "0" / "0"
    path.write_bytes(path.read_bytes()[:-10])
    backbone = StandInBackbone()
    manifest = resume(interrupted, backbone)
    assert manifest["resumed_shards"] == 1
    assert "shard 0 of block 1" in caplog.text
    verify(interrupted / "out")


def test_a_damaged_journal_starts_over(interrupted: Path) -> None:
    (interrupted / "work" / "journal.json").write_text("{")
    assert resume(interrupted, StandInBackbone())["resumed_shards"] == 0


@pytest.mark.parametrize("moved", [False, True])
def test_a_kill_during_the_move_into_place_loses_nothing(tmp_path: Path, moved: bool) -> None:
    out = record_small(tmp_path)
    work = tmp_path / "work"
    work.mkdir()
    journal = {"spec_digest": json.loads((out / MANIFEST).read_text())["spec_digest"], "shards": {}}
    for number, files in enumerate(zip(*json.loads((out / MANIFEST).read_text())["shards"].values(), strict=True)):
        journal["shards"][str(number)] = {"files": dict(zip(("block1", "block4"), files, strict=True))}
    (work / "journal.json").write_text(json.dumps(journal))
    (out / MANIFEST).rename(work / MANIFEST)
    if not moved:
        (out / STORE).rename(work / STORE)
    backbone = StandInBackbone()
    resume(tmp_path, backbone)
    assert backbone.passes == 0
    verify(out)
    assert not work.exists()


def test_publish_replaces_an_older_store(tmp_path: Path) -> None:
    new, old = record_small(tmp_path / "new", n=20), record_small(tmp_path / "old")
    publish(new, old)
    verify(old)
    assert not a_shard(old, shard=2).exists()
