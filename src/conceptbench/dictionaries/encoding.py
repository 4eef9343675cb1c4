"""Raw activations in, sparse codes out, with bounded memory."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from conceptbench.dictionaries.codes import Codes
from conceptbench.dictionaries.omp import omp_encode, split_signs
from conceptbench.dictionaries.rules import Assign, KeepAbove, KeepLargest, Pursue
from conceptbench.errors import ConceptBenchError

if TYPE_CHECKING:
    from conceptbench.dictionaries.dictionary import Dictionary

TILE_VALUES: Final = 8 << 20
"""Pre-activations held at once (32 MiB): large enough for an efficient product, small beside any code."""


def encode(dictionary: "Dictionary", x: Float32[np.ndarray, "*rows feature"], device: str = "cpu") -> Codes:
    """Encode raw activations; see `Dictionary.encode`."""
    if x.ndim not in (2, 3) or x.shape[-1] != dictionary.d:
        raise ConceptBenchError(
            f"Activations of shape {tuple(x.shape)} do not fit a dictionary of {dictionary.d} features; "
            "use the backbone and block it was learnt on."
        )
    images, tokens = x.shape[0], 1 if x.ndim == 2 else x.shape[1]
    rows = np.asarray(x, np.float32).reshape(-1, dictionary.d)
    sizes, indices, values = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    for size, index, value in _tiles(dictionary, rows, torch.device(device)):
        sizes.append(size)
        indices.append(index)
        values.append(value)
    return Codes(
        indptr=np.cumsum(np.concatenate(sizes)),
        indices=np.concatenate(indices),
        values=np.concatenate(values),
        shape=(images, tokens, dictionary.width),
        dictionary=dictionary.digest,
    )


def _tiles(dictionary: "Dictionary", rows: np.ndarray, device: torch.device) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield (firings per row, latents, values) for consecutive tiles of rows."""
    choose = _choice(dictionary, device)
    height = max(1, TILE_VALUES // dictionary.width)
    with torch.inference_mode():
        for start in range(0, len(rows), height):
            part = rows[start : start + height]
            if not np.isfinite(part).all():
                raise ConceptBenchError("Tokens to encode hold NaN or infinity; verify the activation store.")
            latents, values = choose(dictionary.normaliser.apply(part) - dictionary.decoder_bias)
            fires = values > 0
            yield (
                fires.sum(1).cpu().numpy().astype(np.int64),
                latents[fires].cpu().numpy().astype(np.int32),
                values[fires].cpu().numpy(),
            )


def _choice(dictionary: "Dictionary", device: torch.device) -> Callable[[np.ndarray], tuple[Tensor, Tensor]]:
    """Return the function from normalised, centred tokens to what `select` returns."""
    rule = dictionary.rule
    if isinstance(rule, Pursue):
        atoms = dictionary.pursued
        return partial(_pursue, atoms=atoms, gram=dictionary.gram, rule=rule)
    weights = torch.from_numpy(dictionary.encoder).to(device)
    bias = torch.from_numpy(dictionary.encoder_bias).to(device)
    return lambda tokens: select(torch.addmm(bias, torch.from_numpy(tokens).to(device), weights.T), rule)


def _pursue(tokens: np.ndarray, atoms: np.ndarray, gram: np.ndarray, rule: Pursue) -> tuple[Tensor, Tensor]:
    indices, values = omp_encode(tokens, atoms, rule.k, rule.sign, gram)
    latents, values = split_signs(indices, values, len(atoms), rule.sign)
    return torch.from_numpy(latents), torch.from_numpy(values)


def select(
    pre: Float[Tensor, "token latent"], rule: KeepLargest | KeepAbove | Assign
) -> tuple[Int64[Tensor, "token slot"], Float[Tensor, "token slot"]]:
    """Return (latents in ascending order, values) per token; slots with a value <= 0 do not fire."""
    match rule:
        case KeepLargest(k=k):
            values, latents = pre.topk(k, dim=1, sorted=False)
            latents, order = latents.sort(dim=1)
            return latents, values.gather(1, order)
        case KeepAbove(thresholds=thresholds):
            values = torch.where(pre > torch.from_numpy(thresholds).to(pre), pre, pre.new_zeros(()))
            return torch.arange(pre.shape[1], device=pre.device).expand_as(pre), values
        case Assign():
            latents = pre.argmax(1, keepdim=True)
            return latents, torch.ones_like(latents, dtype=pre.dtype)
