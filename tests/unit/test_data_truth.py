"""Truth of the rendered world: factor tables, patch masks and counterfactual pairs agree with the pixels."""

import numpy as np
import pytest

from conceptbench.data import (
    Dataset,
    DatasetSpec,
    counterfactual_pairs,
    factor_table,
    object_table,
    patch_masks,
    prepare_dataset,
)
from conceptbench.data.vocabulary import BACKGROUNDS, KINDS, OBJECT_FACTORS
from conceptbench.errors import ConceptBenchError


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    spec = DatasetSpec("scenes", "scenes", sizes={"test": 120}, pairs=90)
    return prepare_dataset(spec, tmp_path_factory.mktemp("scenes"), None, seed=2)


@pytest.fixture(scope="module")
def flora(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    spec = DatasetSpec("flora", "flora", images_per_class=4)
    return prepare_dataset(spec, tmp_path_factory.mktemp("flora"), None, seed=2)


def test_factor_table_of_scenes(scenes: Dataset) -> None:
    table = factor_table(scenes)
    assert list(table.columns) == ["image", "factor", "value"] and not table.duplicated().any()
    row = scenes.manifest.iloc[7]
    colours = {row[f"object{o}_colour"] for o in range(3)} - {""}
    assert set(table.query("image == 7 and factor == 'colour'")["value"]) == colours
    assert (table[table["factor"] == "background"].groupby("image").size() == 1).all()
    for factor, values in {**OBJECT_FACTORS, "kind": tuple(KINDS), "background": BACKGROUNDS}.items():
        assert set(table.loc[table["factor"] == factor, "value"]) == set(values)


def test_object_table(scenes: Dataset) -> None:
    objects = object_table(scenes)
    assert np.array_equal(objects.groupby("image").size().to_numpy(), scenes.manifest["n_objects"].to_numpy())
    wugs = objects[(objects["shape"] == "ring") & (objects["colour"] == "red")]
    assert (wugs["kind"] == "wug").all()


def test_factor_table_of_a_task(flora: Dataset) -> None:
    table = factor_table(flora)
    assert set(table["factor"]) == {"class", "petal_count", "petal_shape", "petal_colour", "centre_colour", "tone"}
    assert table.query("image == 0 and factor == 'class'")["value"].tolist() == ["alvane"]
    assert table.query("image == 0 and factor == 'petal_count'")["value"].tolist() == ["5"]
    with pytest.raises(ConceptBenchError, match="only scenes know their objects"):
        patch_masks(flora, [0], 8)


def test_masks_are_shares_that_add_up(scenes: Dataset) -> None:
    rows = np.arange(len(scenes))
    masks = patch_masks(scenes, rows, 8)
    assert all(mask.shape == (len(rows), 64) and mask.dtype == np.float32 for mask in masks.values())
    assert all(mask.min() >= 0 and mask.max() <= 1 for mask in masks.values())
    for factor in OBJECT_FACTORS:
        total = sum(mask for name, mask in masks.items() if name.split("=")[0] in {factor, "background"})
        np.testing.assert_allclose(total, 1.0, atol=1e-4)
    present = factor_table(scenes)
    for name, mask in masks.items():
        factor, value = name.split("=")
        images = set(present.loc[(present["factor"] == factor) & (present["value"] == value), "image"])
        assert set(np.flatnonzero(mask.sum(axis=1) > 0)) <= images


def test_masks_on_other_grids(scenes: Dataset) -> None:
    fine, coarse = patch_masks(scenes, [0, 5], (16, 16)), patch_masks(scenes, [0, 5], 4)
    for name in fine:
        pooled = fine[name].reshape(2, 4, 4, 4, 4).mean(axis=(2, 4)).reshape(2, 16)
        np.testing.assert_allclose(pooled, coarse[name], atol=1e-4)
    with pytest.raises(ConceptBenchError, match="square grid, not 8 x 4"):
        patch_masks(scenes, [0], (8, 4))


def test_masks_lie_where_an_object_is(scenes: Dataset) -> None:
    """Moving one object changes pixels only in patches that it covers before or after."""
    pairs = counterfactual_pairs(scenes).query("factor == 'place'")
    before, after = scenes.images(pairs["before"]), scenes.images(pairs["after"])
    changed = (before != after).any(axis=3).reshape(-1, 8, 8, 8, 8).any(axis=(2, 4)).reshape(-1, 64)
    covered = np.zeros(changed.shape, dtype=bool)
    for side in ("before", "after"):
        masks = patch_masks(scenes, pairs[side].to_numpy(), 8)
        covered |= sum(mask for name, mask in masks.items() if name.startswith("shape=")) > 0
    assert len(pairs) > 5 and not (changed & ~covered).any()
    assert changed.any(axis=1).all()


def test_pairs_differ_in_one_factor(scenes: Dataset) -> None:
    pairs = counterfactual_pairs(scenes)
    assert len(pairs) == 90 and set(pairs["factor"]) == {*OBJECT_FACTORS, "background"}
    columns = [f"object{o}_{factor}" for o in range(3) for factor in OBJECT_FACTORS] + ["background"]
    for pair in pairs.itertuples():
        before, after = scenes.manifest.iloc[pair.before], scenes.manifest.iloc[pair.after]
        assert before["index"] == after["index"] and pair.old != pair.new
        changed = [column for column in columns if before[column] != after[column]]
        assert changed == ["background" if pair.factor == "background" else f"object{pair.object}_{pair.factor}"]
        assert (before[changed[0]], after[changed[0]]) == (pair.old, pair.new)
    assert not (scenes.images(pairs["before"]) == scenes.images(pairs["after"])).all(axis=(1, 2, 3)).any()


def test_pairs_are_asked_for(flora: Dataset) -> None:
    with pytest.raises(ConceptBenchError, match="no counterfactual pairs"):
        counterfactual_pairs(flora)
