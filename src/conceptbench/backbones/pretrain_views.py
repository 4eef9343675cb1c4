"""Random views for self-supervised pretraining: crop, flip, a mild change of colour."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def random_view(pixels: Float[Tensor, "n 3 s s"], generator: torch.Generator) -> Float[Tensor, "n 3 s s"]:
    """One view of each picture: a crop of 40-100 % of the area resized back, a flip, gain and offset per channel."""
    n, _, size, _ = pixels.shape
    side = (0.4 + 0.6 * torch.rand(n, generator=generator)).sqrt()
    shift = (torch.rand(n, 2, generator=generator) * 2 - 1) * (1 - side)[:, None]
    flip = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
    affine = torch.zeros(n, 2, 3)
    affine[:, 0, 0], affine[:, 1, 1] = side * flip, side
    affine[:, :, 2] = shift
    grid = F.affine_grid(affine, [n, 3, size, size], align_corners=False)
    view = F.grid_sample(pixels, grid, align_corners=False, padding_mode="reflection")
    gain = 1 + 0.3 * (torch.rand(n, 3, 1, 1, generator=generator) - 0.5)
    offset = 0.4 * (torch.rand(n, 1, 1, 1, generator=generator) - 0.5)
    return view * gain + offset
