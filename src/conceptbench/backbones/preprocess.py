"""Images to pixels: the model's own resize, crop and normalisation, with a shortcut for images of the model's size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from torch import Tensor

from conceptbench.errors import ConceptBenchError


class Preprocess:
    """Images (PIL, or one uint8 array) to normalised float32 pixels [image, 3, height, width]."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Take open_clip's preprocessing configuration (size, mean, std, interpolation, resize_mode, ...)."""
        settings = {key: _plain(value) for key, value in merge_preprocess_dict(PreprocessCfg(), dict(config)).items()}
        size = settings["size"]
        height, width = size if isinstance(size, list) else (size, size)
        self.config: dict[str, Any] = settings | {"size": [int(height), int(width)]}
        self.size: tuple[int, int] = (int(height), int(width))
        self._transform = image_transform_v2(PreprocessCfg(**(self.config | {"size": self.size})), is_train=False)
        self._mean = torch.tensor(_three(settings["mean"]), dtype=torch.float32).view(3, 1, 1)
        self._std = torch.tensor(_three(settings["std"]), dtype=torch.float32).view(3, 1, 1)

    def __call__(
        self, images: UInt8[np.ndarray, "image height width 3"] | Sequence[Image.Image]
    ) -> Float[Tensor, "image 3 height width"]:
        """Pixels of `images`. An array whose images already have the model's size skips Pillow, with equal bits.

        Raises ConceptBenchError for an array that is not uint8 [image, height, width, 3].
        """
        if isinstance(images, np.ndarray):
            if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
                raise ConceptBenchError(
                    f"Images must be a uint8 array [image, height, width, 3], not {images.dtype} {images.shape}; "
                    "convert them or pass PIL images."
                )
            if images.shape[1:3] == self.size:
                return self._normalise(images)
            images = [Image.fromarray(image) for image in images]
        if len(images) == 0:
            return torch.empty(0, 3, *self.size)
        return torch.stack([self._transform(image) for image in images])

    def _normalise(self, images: UInt8[np.ndarray, "image height width 3"]) -> Float[Tensor, "image 3 height width"]:
        """torchvision's to_tensor and normalize, on the whole array at once."""
        planar = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        return torch.from_numpy(planar).to(torch.float32).div_(255).sub_(self._mean).div_(self._std)


def _plain(value: Any) -> Any:
    """Tuples and arrays as lists, so that the configuration is the same before and after a JSON file."""
    return list(value) if isinstance(value, (tuple, list, np.ndarray)) else value


def _three(value: Any) -> list[float]:
    return [float(x) for x in value] if isinstance(value, list) else [float(value)] * 3
