"""Bad input ends in one sentence that names the remedy, a failed exit, and nothing half-written."""

import hashlib
import json
import shutil
import subprocess
import time
from typing import Any

import pytest

from .processes import session
from .workspace import Workspace

pytestmark = pytest.mark.workflow

CONFIGURATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"measures": {"resample": 100}}, "unknown key 'measures.resample'; did you mean 'resamples'?"),
    "missing data_root": ({"datasets": {"photos": {"kind": "eurosat"}}}, "'data_root', which is not set; set it"),
    "more shots than images": ({"adaptations": {"shots": 7}}, "'flora' has 6 training images in a class; lower it"),
    "layer out of range": ({"hooks": {"clip-tiny": [4, 6]}}, "its blocks are 0 to 5; choose one of these"),
}


def assert_refused(done: Any, sentence: str) -> None:
    assert done.returncode != 0
    assert sentence in done.stdout, done.stdout[-3000:]
    assert "Traceback" not in done.stdout


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_configuration_is_refused_before_anything_runs(empty: Workspace, case: str) -> None:
    overlay, sentence = CONFIGURATIONS[case]
    assert_refused(empty.snakemake(overlay=overlay, check=False), sentence)
    assert not empty.results.exists()


def test_folder_of_photographs_that_is_not_there(empty: Workspace) -> None:
    overlay = {
        "data_root": "nowhere",
        "datasets": {"photos": {"kind": "eurosat"}},
        "adaptations": {"tasks": ["photos"]},
    }
    done = empty.snakemake("results/smoke/datasets/photos/card.json", overlay=overlay, check=False)
    assert_refused(done, "Error in rule fetch_dataset:")
    assert "nowhere" in done.stdout
    assert not (empty.results / "datasets" / "photos" / "card.json").exists()


def test_store_of_another_backbone(workspace: Workspace) -> None:
    stores, codes = workspace.results / "activations", workspace.results / "codes" / "random-local"
    shutil.rmtree(stores / "random-local" / "scenes")
    shutil.copytree(stores / "clip-tiny" / "scenes", stores / "random-local" / "scenes")
    shutil.rmtree(codes)
    target = "results/smoke/codes/random-local/scenes/manifest.json"
    done = workspace.snakemake(target, "--allowed-rules", "encode_codes", check=False)
    assert_refused(done, "Error in rule encode_codes:")
    assert "clip-tiny" in done.stdout
    assert not list(codes.rglob("*.safetensors"))


def test_store_of_a_backbone_of_the_same_name_with_other_weights(workspace: Workspace) -> None:
    """As when a store was copied from another experiment: the name is right, the weights are not those of the card."""
    card = workspace.results / "backbones" / "random-local" / "card.json"
    codes = workspace.results / "codes" / "random-local"
    recorded = json.loads(card.read_text())["digest"]
    card.write_text(json.dumps({**json.loads(card.read_text()), "digest": "0" * 64}))
    shutil.rmtree(codes)
    target = "results/smoke/codes/random-local/scenes/manifest.json"
    done = workspace.snakemake(target, "--allowed-rules", "encode_codes", check=False)
    assert_refused(done, f"was recorded with backbone_digest '{recorded}' but '{'0' * 64}' is needed; record it again")
    assert not list(codes.rglob("*.safetensors"))


def test_adapted_store_of_another_adapter(workspace: Workspace) -> None:
    """As when the store was copied from another run: backbone and block are right, the adapter is another."""
    folder = workspace.results / "adapters" / "clip-tiny" / "flora" / "maple"
    adapted = workspace.results / "adapted" / "clip-tiny" / "flora" / "maple"
    weights = folder / "seed0" / "adapter.safetensors"
    changed = weights.read_bytes() + b" "
    weights.unlink()  # a link to the one of other tests
    weights.write_bytes(changed)
    (adapted / "codes.json").unlink()
    target = str((adapted / "codes.json").relative_to(workspace.folder))
    done = workspace.snakemake(target, "--allowed-rules", "encode_adapted", check=False)
    assert_refused(done, "Error in rule encode_adapted:")
    assert f"but '{hashlib.sha256(changed).hexdigest()}' is needed; record it again" in done.stdout
    assert not (adapted / "codes.json").exists()


def test_a_disk_that_is_too_small_is_said_before_the_run_starts(empty: Workspace) -> None:
    overlay = {"datasets": {"scenes": {"sizes": {"test": 10**12}}}}
    done = empty.snakemake(overlay=overlay, check=False)
    assert_refused(done, "Experiment smoke needs ")
    assert "GB free" in done.stdout and "record fewer images" in done.stdout
    assert not list(empty.results.glob("logs/**/*.log"))


def test_two_runs_on_one_results_folder(empty: Workspace) -> None:
    """Of one checkout; test_one_run.py has two, and two configurations."""
    target = "results/smoke/backbones/random-local/card.json"
    with session(empty.command(target), empty.folder, empty.environment, subprocess.DEVNULL) as first:
        locks, deadline = empty.folder / ".snakemake" / "locks", time.monotonic() + 60
        while not (locks.is_dir() and list(locks.iterdir())) and first.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        done = empty.snakemake(target, check=False)
        assert first.wait(timeout=300) == 0
    assert_refused(done, "Directory cannot be locked")
    assert (empty.folder / target).is_file()
