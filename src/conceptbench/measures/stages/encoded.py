"""Codes on disk, as the measures take them: one dictionary on one data set, with the images that were encoded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int64

from conceptbench.dictionaries import Codes
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json


@dataclass(frozen=True)
class Encoded:
    """Codes of one dictionary; ``rows`` are the data set's images in the order of the codes."""

    backbone: str
    block: int
    dictionary: str
    seed: str
    codes: Codes
    rows: Int64[np.ndarray, " image"]

    @property
    def ids(self) -> dict[str, Any]:
        """The identifying columns of every table."""
        return {"backbone": self.backbone, "block": self.block, "dictionary": self.dictionary, "seed": self.seed}

    def of(self, wanted: Sequence[int] | np.ndarray) -> Codes:
        """The codes of some images of the data set, in the order asked for.

        Raises:
            ConceptBenchError: when an image was not encoded.
        """
        order = np.argsort(self.rows)
        at = np.searchsorted(self.rows, wanted, sorter=order).clip(max=len(order) - 1)
        positions = order[at]
        if not np.array_equal(self.rows[positions], wanted):
            raise ConceptBenchError(
                f"Codes of dictionary {self.dictionary} on {self.backbone} lack images of the split that a measure "
                "needs; encode that split again."
            )
        return self.codes.select_images(positions)


def prefix_tokens(codes: Codes, grid: tuple[int, int]) -> int:
    """Tokens of an image before its patch tokens: what the grid of the backbone leaves.

    Raises:
        ConceptBenchError: when the codes have fewer tokens than the grid has patches.
    """
    n_prefix = codes.shape[1] - grid[0] * grid[1]
    if n_prefix < 0:
        raise ConceptBenchError(
            f"The codes have {codes.shape[1]} tokens an image, fewer than the {grid[0]} x {grid[1]} patches of the "
            "backbone; encode the data set again."
        )
    return n_prefix


def read_encoded(
    folder: Path, blocks: Sequence[int] | None = None, names: Sequence[str] | None = None
) -> Iterator[Encoded]:
    """The codes below R/codes/<backbone>/<dataset>, one dictionary at a time, in the order of their manifest."""
    spec = read_json(folder / "manifest.json")
    rows = np.asarray(spec["rows"], dtype=np.int64)
    for block in spec["spec"]["blocks"]:
        for name, seeds in spec["spec"]["seeds_of"].items():
            for seed in seeds:
                if (blocks is None or block in blocks) and (names is None or name in names):
                    path = folder / f"block{block}" / name / f"seed{seed}" / "codes.safetensors"
                    yield Encoded(spec["spec"]["backbone"], block, name, str(seed), Codes.load(path), rows)


def read_adapted(folder: Path) -> dict[str, Codes]:
    """The codes below R/adapted/<backbone>/<task>/<method> (images of the test split), by seed."""
    spec = read_json(folder / "codes.json")["spec"]
    return {str(seed): Codes.load(folder / f"seed{seed}" / "codes.safetensors") for seed in spec["seeds"]}


def label_columns(frame: pd.DataFrame, columns: dict[str, Any]) -> pd.DataFrame:
    """A table with identifying columns put first."""
    kept = frame.drop(columns=[name for name in columns if name in frame])
    return pd.concat([pd.DataFrame(columns, index=kept.index), kept], axis=1)
