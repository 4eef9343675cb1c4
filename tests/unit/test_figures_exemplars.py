"""Exemplars: the file round trip, and the heat map."""

from pathlib import Path

import figures_tables as made
import numpy as np
import pandas as pd
import pytest

from conceptbench.errors import ConceptBenchError
from conceptbench.figures.exemplars import (
    NEEDED,
    OPTIONAL,
    ExemplarSheet,
    draw_exemplars,
    load_exemplars,
    overlay,
)

ARRAYS = (*NEEDED, *OPTIONAL)


def test_round_trip(tmp_path: Path) -> None:
    sheet = made.exemplars(2, 3)
    sheet.save(tmp_path / "exemplars.npz")
    again = load_exemplars(tmp_path / "exemplars.npz")
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(again, name), getattr(sheet, name))
    assert again.note == sheet.note


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match=r"exemplars\.npz do not exist"):
        load_exemplars(tmp_path / "exemplars.npz")
    (tmp_path / "broken.npz").write_bytes(b"no archive")
    with pytest.raises(ConceptBenchError, match=r"broken\.npz are unreadable"):
        load_exemplars(tmp_path / "broken.npz")
    made.exemplars(2, 3).save(tmp_path / "short.npz")
    content = (tmp_path / "short.npz").read_bytes()
    (tmp_path / "short.npz").write_bytes(content[: len(content) // 2])
    with pytest.raises(ConceptBenchError, match=r"short\.npz are unreadable"):
        load_exemplars(tmp_path / "short.npz")


def test_arrays_that_do_not_match_are_refused() -> None:
    sheet = made.exemplars(2, 3)
    arrays = {name: getattr(sheet, name) for name in ARRAYS}
    with pytest.raises(ConceptBenchError, match="unfit latent"):
        ExemplarSheet(**(arrays | {"latent": np.arange(3)}))
    with pytest.raises(ConceptBenchError, match="images float64"):
        ExemplarSheet(**(arrays | {"images": sheet.images / 255}))


def test_overlay_keeps_silent_patches_grey_and_tints_the_strongest() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (30, 30, 3)).astype(np.uint8)
    share = np.zeros((7, 7))
    share[0, 6] = 1.0
    tinted = overlay(picture, share)
    rows, columns = np.arange(30) * 7 // 30, np.arange(30) * 7 // 30
    inside = np.ix_(rows == 0, columns == 6)
    grey = tinted.max(axis=-1).astype(int) - tinted.min(axis=-1) == 0
    assert not grey[inside].any()
    outside = np.ones((30, 30), dtype=bool)
    outside[inside] = False
    assert grey[outside].all()


def test_a_file_with_the_needed_arrays_only_is_enough(tmp_path: Path) -> None:
    sheet = made.exemplars(2, 3)
    np.savez(tmp_path / "bare.npz", **{name: getattr(sheet, name) for name in NEEDED})
    draw_exemplars(tmp_path / "bare.npz", tmp_path / "x", dpi=50)
    shown = pd.read_csv(tmp_path / "x.csv")
    assert len(shown) == 5, "the slot without an image is left out"
    assert set(shown["image"]) == {-1} and shown["title"].isna().all()


def test_latents_without_images_or_without_any_latent_are_drawn(tmp_path: Path) -> None:
    sheet = made.exemplars(1, 2)
    arrays = {name: getattr(sheet, name) for name in ARRAYS}
    silent = arrays | {"maps": np.zeros_like(sheet.maps)}
    draw_exemplars(ExemplarSheet(**silent), tmp_path / "silent", dpi=50)
    assert set(pd.read_csv(tmp_path / "silent.csv")["patch"]) == {-1}
    absent = arrays | {"maps": np.full_like(sheet.maps, np.nan)}
    draw_exemplars(ExemplarSheet(**absent), tmp_path / "absent", dpi=50)
    none = ExemplarSheet(**{name: array[:0] for name, array in arrays.items()})
    draw_exemplars(none, tmp_path / "none", dpi=50)
    assert (tmp_path / "none.png").is_file()
