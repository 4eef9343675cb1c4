"""Edits on a small CLIP: what an edit must not change, and the sums it removes, against a dense reference."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from remapping_tools import BLOCK, LATENTS, WIDTH, adapter, small_backbone, world

from conceptbench.measures.edits import (
    Firings,
    atoms_in_raw_units,
    base_tokens,
    off_steps,
    on_steps,
    refit,
    removal_curve,
    remove,
)

READOUT, ACTIVATIONS, DICTIONARY, CODES = world()
FIRINGS = Firings.of(CODES)
ATOMS = atoms_in_raw_units(DICTIONARY, ACTIVATIONS.tokens)
DENSE = CODES.csr().toarray().reshape(CODES.shape)
NONE = np.zeros(len(FIRINGS.row), dtype=bool)


def edited(chosen: np.ndarray, base: str = "keep-error") -> torch.Tensor:
    start = base_tokens(DICTIONARY, ACTIVATIONS.tokens, CODES, base)  # type: ignore[arg-type]
    return remove(start, FIRINGS, chosen, ATOMS)


@torch.no_grad()
@pytest.mark.parametrize("depth", [0, 2])
def test_the_identity_edit_reproduces_the_logits_exactly(depth: int) -> None:
    readout, activations, dictionary, codes = world(depth=depth)
    pixels = torch.randn(12, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with readout.adapter.image_context(readout.backbone):
        plain = readout.backbone.encode_image(pixels)
    start = base_tokens(dictionary, activations.tokens, codes, "keep-error")
    firings = Firings.of(codes)
    same = remove(start, firings, np.zeros(len(firings.row), dtype=bool), atoms_in_raw_units(dictionary, start))
    logits = readout.logits(same, activations.prompts)
    assert torch.equal(logits, readout.adapter.classify(readout.backbone, plain, readout.class_names))


def test_an_empty_edit_is_the_base_itself() -> None:
    assert edited(NONE) is ACTIVATIONS.tokens
    reconstruction = DICTIONARY.reconstruct(ACTIVATIONS.numpy())
    np.testing.assert_array_equal(edited(NONE, "replace").numpy(), reconstruction)


def test_a_mask_of_all_latents_is_the_reconstruction_and_its_complement_the_error() -> None:
    nothing_left = edited(~NONE, "replace").numpy()
    empty = DICTIONARY.normaliser.invert(DICTIONARY.decoder_bias)
    np.testing.assert_allclose(nothing_left, np.broadcast_to(empty, nothing_left.shape), atol=2e-5)
    error = ACTIVATIONS.numpy() - DICTIONARY.reconstruct(ACTIVATIONS.numpy()) + empty
    np.testing.assert_allclose(edited(~NONE).numpy(), error, atol=2e-5)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, LATENTS - 1)), st.sampled_from(["keep-error", "replace"]))
def test_removal_is_the_dense_formula(latents: set[int], base: str) -> None:
    gone = np.isin(np.arange(LATENTS), list(latents))
    code = DENSE * ~gone
    reconstruction = DICTIONARY.reconstruct(ACTIVATIONS.numpy())
    expected = (code - DENSE) @ (DICTIONARY.atoms * DICTIONARY.normaliser.scale)
    expected = expected + (ACTIVATIONS.numpy() if base == "keep-error" else reconstruction)
    np.testing.assert_allclose(edited(gone[FIRINGS.latent], base).numpy(), expected, atol=3e-5)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(1, LATENTS - 1), max_size=5), st.integers(0, 1000))
def test_curves_are_the_single_edits(inner: set[int], seed: int) -> None:
    ks = np.array([0, *sorted(inner), LATENTS])
    ranks = np.random.default_rng(seed).permuted(np.tile(np.arange(LATENTS), (len(DENSE), 1)), axis=1)
    rank = FIRINGS.pick(ranks)
    off = list(removal_curve(ACTIVATIONS.tokens, FIRINGS, off_steps(rank, ks), len(ks), ATOMS))
    on = list(removal_curve(ACTIVATIONS.tokens, FIRINGS, on_steps(rank, ks), len(ks), ATOMS))
    assert len(off) == len(on) == len(ks)
    assert off[0] is ACTIVATIONS.tokens and on[0] is ACTIVATIONS.tokens
    for k, removed, kept in zip(ks, off, on[::-1], strict=True):
        torch.testing.assert_close(removed, edited(rank < k), atol=3e-5, rtol=0)
        torch.testing.assert_close(kept, edited(rank >= k), atol=3e-5, rtol=0)


def test_firings_of_a_batch_are_those_of_its_images() -> None:
    part, where = FIRINGS.images(slice(3, 7))
    assert part.shape == (4, *CODES.shape[1:])
    matrix = np.zeros((4 * CODES.shape[1], LATENTS))
    matrix[part.row, part.latent] = part.value
    np.testing.assert_array_equal(matrix.reshape(4, -1, LATENTS), DENSE[3:7])
    assert np.array_equal(FIRINGS.value[where], part.value)


def test_only_the_blocks_above_the_hook_point_run(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = small_backbone()
    calls: list[int] = []
    for number, block in enumerate(backbone.vision_blocks):
        block.register_forward_hook(lambda *_, number=number: calls.append(number))
    readout = type(READOUT)(backbone, adapter(), BLOCK, READOUT.class_names)
    readout.log_probabilities(ACTIVATIONS.tokens, ACTIVATIONS.prompts)
    assert calls == [2, 3] and ACTIVATIONS.tokens.shape[2] == WIDTH


def explained(firings: Firings) -> np.ndarray:
    """Tokens [row, feature] less everything that fires at them, in float64."""
    n = CODES.n_rows
    start = ACTIVATIONS.numpy().reshape(n, WIDTH) - DICTIONARY.normaliser.invert(DICTIONARY.decoder_bias)
    dense = np.zeros((n, LATENTS))
    dense[firings.row, firings.latent] = firings.value
    return np.asarray(start.astype(np.float64) - dense @ DICTIONARY.directions)


def test_refitted_values_are_least_squares_on_the_atoms_that_fire() -> None:
    error = ACTIVATIONS.tokens - base_tokens(DICTIONARY, ACTIVATIONS.tokens, CODES, "replace")
    found = refit(FIRINGS, error, ATOMS)
    np.testing.assert_array_equal(found.latent, FIRINGS.latent)
    before, after = explained(FIRINGS), explained(found)
    for row in range(0, CODES.n_rows, 3):
        mine = FIRINGS.row == row
        directions = DICTIONARY.directions[FIRINGS.latent[mine]].astype(np.float64)
        change = np.linalg.lstsq(directions.T, before[row], rcond=None)[0]
        np.testing.assert_allclose(found.value[mine] - FIRINGS.value[mine], change, atol=2e-3 * np.abs(change).max())
        assert np.abs(directions @ after[row]).max() < 1e-3 * np.abs(directions @ before[row]).max()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(0.1, 0.9), st.sampled_from([3, 40]))
def test_a_refit_finds_what_a_shrunken_code_holds_back(seed: int, share: float, width: int) -> None:
    rng = np.random.default_rng(seed)
    atoms, true = rng.normal(size=(width, WIDTH)).astype(np.float32), rng.uniform(1, 2, 6).astype(np.float32)
    latents = np.concatenate([rng.choice(width, 3, replace=False) for _ in range(2)])
    rows = np.repeat([1, 4], 3)
    tokens = np.zeros((3, 2, WIDTH), np.float32)
    np.add.at(tokens.reshape(6, WIDTH), rows, true[:, None] * atoms[latents])
    coded = Firings(rows, latents, share * true, (3, 2, width))
    found = refit(coded, torch.from_numpy((1 - share) * tokens), torch.from_numpy(atoms))
    np.testing.assert_allclose(found.value, true, rtol=2e-3)


def test_where_atoms_are_one_and_the_same_the_change_is_shared() -> None:
    atoms = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    coded = Firings(np.zeros(2, dtype=int), np.array([0, 1]), np.array([1.0, 0.0], np.float32), (1, 1, 3))
    found = refit(coded, torch.tensor([[[2.0, 5.0]]]), atoms)
    np.testing.assert_allclose(found.value, [2.0, 1.0], atol=1e-6)
    nothing = replace(coded, row=np.zeros(0, int), latent=np.zeros(0, int), value=np.zeros(0, np.float32))
    assert refit(nothing, torch.tensor([[[2.0, 5.0]]]), atoms) is nothing
    assert refit(coded, torch.zeros(1, 1, 2), atoms).value.tolist() == [1.0, 0.0]
