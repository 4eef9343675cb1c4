"""Dictionaries learnt from the backbone itself: no activations of the training images are stored."""

import json

import pytest

from .workspace import Workspace

pytestmark = pytest.mark.workflow

LIVE = {"dictionaries": {"live": True}}
DICTIONARIES = "results/smoke/dictionaries/random-local/manifest.json"
STORE = "results/smoke/activations/random-local/scenes/manifest.json"


def test_dictionaries_need_no_store_and_only_measured_images_are_recorded(workspace: Workspace) -> None:
    card = workspace.results / "dictionaries" / "random-local" / "block4" / "topk" / "seed0" / "card.json"
    stored = json.loads(card.read_text())
    assert workspace.planned(DICTIONARIES, overlay=LIVE) == {"learn_dictionaries": 1}
    workspace.snakemake(DICTIONARIES, STORE, overlay=LIVE)
    live = json.loads(card.read_text())
    assert live["training"]["tokens"] == stored["training"]["tokens"]
    assert live["metrics"]["fvu"] == pytest.approx(stored["metrics"]["fvu"], rel=0.01)
    manifest = json.loads((workspace.folder / STORE).read_text())
    assert manifest["shape"][0] == 128 + 256 + 2 * 64  # val, test and pairs; none of the 384 of train
    assert workspace.planned(DICTIONARIES, STORE, overlay=LIVE) == {}
