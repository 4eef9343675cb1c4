"""The stratified split used where nobody published one, and the limit on the images of a class."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from conceptbench.seeds import rng

SPLITS = ("train", "val", "test")
TRAIN_SHARE, VAL_SHARE = 0.5, 0.2


def stratified_counts(n: int) -> tuple[int, int, int]:
    """How many of a class's n images are train, val and test: 50, 20 and 30 %, rounded as CoOp rounds."""
    train, val = round(n * TRAIN_SHARE), round(n * VAL_SHARE)
    return train, val, n - train - val


def stratified_split(labels: Sequence[int] | np.ndarray, seed: int, name: str) -> np.ndarray:
    """A split name for each item: within each class a seeded shuffle, then 50/20/30 %.

    This is a split of this project. CoOp's files use the same shares but another shuffle, so the images differ.
    """
    label = np.asarray(labels)
    split = np.empty(len(label), dtype=object)
    for value in np.unique(label):
        members = rng(seed, "stratified split", name, int(value)).permutation(np.flatnonzero(label == value))
        split[members] = np.repeat(SPLITS, stratified_counts(len(members)))
    return split


def limit_per_class(frame: pd.DataFrame, limit: int | None, seed: int, name: str) -> pd.DataFrame:
    """At most `limit` rows of each (split, label), chosen by the seed, in the order they had."""
    if limit is None:
        return frame
    kept = []
    for split, label in frame[["split", "label"]].drop_duplicates().itertuples(index=False):
        members = np.flatnonzero((frame["split"] == split) & (frame["label"] == label))
        kept.append(rng(seed, "limit", name, str(split), str(label)).permutation(members)[:limit])
    return frame.iloc[np.sort(np.concatenate(kept))].reset_index(drop=True)
