"""Raw activations in, sparse codes out, with bounded memory."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from conceptbench.dictionaries.candidates import Candidates
from conceptbench.dictionaries.codes import Codes
from conceptbench.dictionaries.omp import omp_encode, split_signs
from conceptbench.dictionaries.rules import Assign, KeepAbove, KeepLargest, Pursue
from conceptbench.dictionaries.support import Support
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
    support = Support.join([Support.empty(0), *_tiles(dictionary, rows, torch.device(device))])
    return Codes(
        indptr=support.start,
        indices=support.latents,
        values=support.values,
        shape=(images, tokens, dictionary.width),
        dictionary=dictionary.digest,
    )


def _tiles(dictionary: "Dictionary", rows: np.ndarray, device: torch.device) -> Iterator[Support]:
    """Yield what fires on consecutive tiles of rows."""
    choose = _choice(dictionary, device)
    height = max(1, TILE_VALUES // dictionary.width)
    with torch.inference_mode():
        for start in range(0, len(rows), height):
            part = rows[start : start + height]
            if not np.isfinite(part).all():
                raise ConceptBenchError("Tokens to encode hold NaN or infinity; verify the activation store.")
            yield choose(dictionary.normaliser.apply(part) - dictionary.decoder_bias)


def _choice(dictionary: "Dictionary", device: torch.device) -> Callable[[np.ndarray], Support]:
    """Return the function from normalised, centred tokens to what fires on them."""
    rule = dictionary.rule
    if isinstance(rule, Pursue):
        return partial(_pursue, atoms=dictionary.pursued, gram=dictionary.gram, rule=rule)
    weights, bias = torch.from_numpy(dictionary.encoder), torch.from_numpy(dictionary.encoder_bias)
    if device.type == "cpu" and isinstance(rule, KeepLargest):
        return partial(Candidates(weights, bias).largest, k=rule.k)
    if device.type == "cpu" and isinstance(rule, KeepAbove):
        return partial(Candidates(weights, bias).above, thresholds=np.maximum(rule.thresholds, 0))
    weights, bias = weights.to(device), bias.to(device)
    return lambda tokens: _support(*select(torch.addmm(bias, torch.from_numpy(tokens).to(device), weights.T), rule))


def _pursue(tokens: np.ndarray, atoms: np.ndarray, gram: np.ndarray, rule: Pursue) -> Support:
    indices, values = omp_encode(tokens, atoms, rule.k, rule.sign, gram)
    latents, values = split_signs(indices, values, len(atoms), rule.sign)
    return _support(torch.from_numpy(latents), torch.from_numpy(values))


def _support(latents: Int64[Tensor, "token slot"], values: Float[Tensor, "token slot"]) -> Support:
    """Return the slots that fire, on the host."""
    fires = values > 0
    start = np.concatenate([np.zeros(1, np.int64), fires.sum(1).cumsum(0).cpu().numpy()])
    return Support(start, latents[fires].cpu().numpy().astype(np.int32), values[fires].cpu().numpy())


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
