"""Dictionaries put together from arrays rather than from a trained autoencoder."""

import numpy as np
from jaxtyping import Float32

from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.learner import Setting
from conceptbench.dictionaries.rules import Assign, CodeRule, Pursue
from conceptbench.errors import ConceptBenchError


def both_signs(rows: Float32[np.ndarray, "row feature"]) -> Float32[np.ndarray, "twice_row feature"]:
    """Return the rows and their negatives: two latents of codes >= 0 for each signed coordinate."""
    return np.concatenate([rows, -rows])


def linear(
    atoms: Float32[np.ndarray, "latent feature"],
    encoder: Float32[np.ndarray, "latent feature"],
    centre: Float32[np.ndarray, "feature"],
    setting: Setting,
    rule: CodeRule,
) -> Dictionary:
    """Return the dictionary that applies `rule` to encoder (x - centre)."""
    return Dictionary(atoms, encoder, np.zeros(len(atoms), np.float32), centre, setting.normaliser, rule)


def assigned(
    centres: Float32[np.ndarray, "latent feature"], mean: Float32[np.ndarray, "feature"], setting: Setting
) -> Dictionary:
    """Return the dictionary that replaces a token by its nearest centre; centres are relative to the mean.

    The nearest of the centres c maximises <x - mean, c> - ||c||^2 / 2.
    """
    bias = (-0.5 * np.square(centres.astype(np.float64)).sum(1)).astype(np.float32)
    return Dictionary(centres, centres.copy(), bias, mean, setting.normaliser, Assign())


def refuse_more(name: str, asked: int | None, available: int) -> None:
    """Refuse to keep or compute more of something than there is."""
    if asked is not None and asked > available:
        raise ConceptBenchError(
            f"Dictionary '{name}' asks for {asked} of {available} available; lower it in the configuration."
        )


def refuse_few(name: str, tokens: int, wanted: int) -> None:
    """Refuse to fit more atoms than there are tokens."""
    if tokens < wanted:
        raise ConceptBenchError(
            f"Dictionary '{name}' asks for {wanted} atoms of {tokens} training tokens; lower its width."
        )


def pursued(
    atoms: Float32[np.ndarray, "latent feature"], mean: Float32[np.ndarray, "feature"], k: int, setting: Setting
) -> Dictionary:
    """Return the dictionary that encodes by non-negative matching pursuit, k at most, over the atoms' directions."""
    norms = np.linalg.norm(atoms, axis=1, keepdims=True)
    units = atoms / np.maximum(norms, np.finfo(np.float32).tiny)
    return linear(units, units.copy(), mean, setting, Pursue(k, "positive"))
