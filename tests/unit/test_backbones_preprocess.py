"""Preprocessing is open_clip's own, and the shortcut for arrays of the model's size has the same bits."""

import numpy as np
import pytest
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from conceptbench.backbones.preprocess import Preprocess
from conceptbench.errors import ConceptBenchError

CONFIGS = [
    {"size": 32},
    {"size": (32, 32), "mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash", "interpolation": "bilinear"},
    {"size": [32, 32], "resize_mode": "longest", "fill_color": 127, "unknown": 1},
]


def reference(config: dict, images: list[Image.Image]) -> torch.Tensor:
    settings = {key: value for key, value in config.items() if key != "unknown"}
    size = settings["size"]
    settings["size"] = tuple(size) if isinstance(size, list) else size
    transform = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    return torch.stack([transform(image) for image in images])


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", [(32, 32), (40, 56), (20, 17)])
def test_arrays_and_pil_images_agree_with_open_clip(config: dict, shape: tuple[int, int]) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, *shape, 3), dtype=np.uint8)
    images = [Image.fromarray(image) for image in array]
    preprocess = Preprocess(config)
    expected = reference(config, images)
    assert expected.shape == (5, 3, 32, 32)
    assert torch.equal(preprocess(images), expected)
    assert torch.equal(preprocess(array), expected)
    assert torch.equal(
        preprocess(array[:, :, ::-1]), reference(config, [Image.fromarray(i) for i in array[:, :, ::-1]])
    )


def test_every_byte_value_has_the_same_bits() -> None:
    array = np.arange(256, dtype=np.uint8).repeat(12).reshape(1, 32, 32, 3)
    assert torch.equal(Preprocess({"size": 32})(array), reference({"size": 32}, [Image.fromarray(array[0])]))


def test_grey_and_transparent_images_become_rgb() -> None:
    images = [Image.new("L", (32, 32), 90), Image.new("RGBA", (32, 32), (90, 90, 90, 10))]
    pixels = Preprocess({"size": 32})(images)
    assert torch.equal(pixels[0], pixels[1])


def test_the_images_are_not_changed_and_none_is_fine() -> None:
    array = np.full((2, 32, 32, 3), 9, dtype=np.uint8)
    Preprocess({"size": 32})(array)
    assert (array == 9).all()
    assert Preprocess({"size": 32})([]).shape == (0, 3, 32, 32)
    assert Preprocess({"size": 32})(array[:0]).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 32, 32, 3)), np.zeros((32, 32, 3), np.uint8), np.zeros((1, 32, 32, 4), np.uint8)]
)
def test_other_arrays_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(ConceptBenchError, match="uint8 array"):
        Preprocess({"size": 32})(bad)
