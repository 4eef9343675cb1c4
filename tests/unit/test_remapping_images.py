"""Images of the remapping measures: split A may have more than split B, and nothing is computed in vain."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from remapping_tools import BLOCK, CLASSES, adapter, dictionary, small_backbone

from conceptbench.config import load_config, stage_spec
from conceptbench.config.remapping import split_images
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.readout import activations_of
from conceptbench.measures.stages.models import SPLIT_A, SPLIT_B, run_model, trained_half

ROOT = Path(__file__).parents[2]


class Noise:
    """Forty noisy images of four classes in each of val and test, and a record of those that were looked at."""

    name, classes = "noise", CLASSES

    def __init__(self) -> None:
        self.read: list[int] = []

    def rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(np.arange(80) % 2 == ("val", "test").index(split))

    def labels(self, rows: Any) -> np.ndarray:
        return np.asarray(rows) // 2 % len(CLASSES)

    def pictures(self, rows: Any) -> np.ndarray:
        self.read += [int(row) for row in rows]
        return np.stack([np.random.default_rng(int(row)).integers(0, 255, (16, 16, 3), dtype=np.uint8) for row in rows])


def half(most: Any, data: Any) -> Any:
    return trained_half("noise", data, "all-classes", most, 0)


def test_one_number_caps_both_splits_and_two_cap_each() -> None:
    even, uneven = half(8, Noise()), half([32, 8], Noise())
    assert {split: len(rows) for split, rows in even.rows.items()} == {SPLIT_A: 8, SPLIT_B: 8}
    assert np.bincount(Noise().labels(uneven.rows[SPLIT_A])).tolist() == [8] * 4
    assert uneven.rows[SPLIT_B].tolist() == even.rows[SPLIT_B].tolist(), "what is scored does not depend on split A"
    assert len(half([400, 8], Noise()).rows[SPLIT_A]) == 40, "a generous cap takes all images"


def test_a_split_is_run_when_it_is_asked_for_and_once() -> None:
    data, backbone, model = Noise(), small_backbone(), adapter()
    images = half([32, 8], data)
    tokens = activations_of(backbone, model, Noise(), images.rows[SPLIT_B], images.candidates, BLOCK)  # type: ignore[arg-type]
    learnt = dictionary(tokens.numpy())
    found = run_model(backbone, model, data, images, BLOCK, learnt)  # type: ignore[arg-type]
    assert data.read == []
    assert found.codes[SPLIT_B].shape[0] == len(found.activations[SPLIT_B].rows) == 8
    assert np.array_equal(found.activations[SPLIT_B].numpy(), tokens.numpy())
    assert data.read == images.rows[SPLIT_B].tolist(), "split A is left alone"
    assert found.activations[SPLIT_A].tokens.shape[0] == 32 and found.codes[SPLIT_A] is found.codes[SPLIT_A]
    assert sorted(data.read) == sorted(np.concatenate([*images.rows.values()]).tolist())
    assert list(found.codes) == [SPLIT_A, SPLIT_B] and len(found.codes) == 2
    with pytest.raises(KeyError):
        found.codes["train"]


def test_the_configuration_takes_one_number_or_two(tmp_path: Path) -> None:
    def loaded(images: Any) -> Any:
        path = tmp_path / "overlay.yaml"
        path.write_text(yaml.safe_dump({"measures": {"concepts": {"images": images}}}))
        return load_config(ROOT / "config.yaml", path)

    assert stage_spec(loaded(48), "measure_concepts")["concepts"]["images"] == 48
    assert stage_spec(loaded([240, 48]), "measure_concepts")["concepts"]["images"] == [240, 48]
    assert split_images(48) == (48, 48) and split_images((240, 48)) == (240, 48)
    for wrong in ([240], [240, 48, 48], [240, 1]):
        with pytest.raises(ConceptBenchError, match="images"):
            loaded(wrong)


def test_photographs_tell_a_class_by_more_images_than_are_scored() -> None:
    """With three images of each class the share on which a latent fires takes four values; q would mean little."""
    measures = load_config(ROOT / "config.yaml", ROOT / "examples" / "local.yaml").measures
    for section in (measures.masking, measures.concepts):
        assert section is not None
        on_a, on_b = split_images(section.images)
        assert on_a // 51 >= 10 and on_a == 5 * on_b
