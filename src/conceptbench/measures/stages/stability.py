"""Rule measure_stability: every dictionary that was learnt more than once against its repetitions."""

from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import pandas as pd

from conceptbench.dictionaries import Codes, load_dictionary
from conceptbench.inference import Estimate
from conceptbench.measures.intervals import pair_interval
from conceptbench.measures.resampling import ALL_SEEDS, Bounds
from conceptbench.measures.stability import LiveLatents, above, chance, compare, live_latents
from conceptbench.seeds import rng

BATCH: Final = 512
COLUMNS: Final = (
    *("backbone", "block", "dictionary", "family", "runs", "matching", "statistic"),
    *("estimate", "low", "high", "n", "seed", "note"),
)


class Tokens(Protocol):
    """What is needed of an activation store, so that reading codes alone does not load its libraries."""

    def iterate(self, block: int, rows: Any = None, batch_images: int = 256) -> Iterator[tuple[Any, Any]]:
        """Yield (rows, activations [image, token, feature])."""


def measure_stability(
    dictionaries: Mapping[str, Path],
    codes: Mapping[str, Path],
    stores: Mapping[str, tuple[Tokens, np.ndarray]],
    spec: Mapping[str, Any],
) -> pd.DataFrame:
    """Table ``stability`` (docs/method.md): every statistic of every pair of runs, and of all pairs together.

    Args:
        dictionaries: backbone -> R/dictionaries/<backbone>. codes: backbone -> folder of the codes on which latents
            count as live. stores: backbone -> (activations, held-out rows), for the dictionaries learnt on halves.
        spec: hooks, dictionaries (name -> method), seeds_of, halves, seed.

    Returns:
        backbone, block, dictionary, family (the method), runs ("seeds": the same training images; "halves": disjoint
        halves of them), matching (assignment, mutual nearest), statistic (those of `compare`, above_floor, and the
        floors of `chance`, all in `conceptbench.measures.stability`), estimate, low, high, n (runs), seed (the two
        runs, "a and b", or "all"), note.
    """
    rows: list[dict[str, Any]] = []
    for backbone, blocks in spec["hooks"].items():
        for block in blocks:
            for name, seeds in spec["seeds_of"].items():
                ids = {"backbone": backbone, "block": block, "dictionary": name, "family": spec["dictionaries"][name]}
                generator = rng(spec["seed"], "stability", backbone, block, name)
                if len(seeds) > 1:
                    place = Path(f"block{block}") / name
                    runs = dict(_seeds(dictionaries[backbone], codes[backbone], place, seeds))
                    rows += _rows({**ids, "runs": "seeds"}, runs, generator)
                if name in spec["halves"]:
                    runs = dict(_halves(dictionaries[backbone], *stores[backbone], block, name))
                    rows += _rows({**ids, "runs": "halves"}, runs, generator)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _seeds(learnt: Path, codes: Path, place: Path, seeds: list[int]) -> Iterator[tuple[str, LiveLatents]]:
    for seed in seeds:
        folder = place / f"seed{seed}"
        dictionary = load_dictionary(learnt / folder)
        yield str(seed), live_latents(dictionary, Codes.load(codes / folder / "codes.safetensors", dictionary.digest))


def _halves(learnt: Path, store: Tokens, rows: np.ndarray, block: int, name: str) -> Iterator[tuple[str, LiveLatents]]:
    for half in ("half0", "half1"):
        dictionary = load_dictionary(learnt / f"block{block}" / name / half)
        parts = [dictionary.encode(tokens) for _, tokens in store.iterate(block, rows, BATCH)]
        yield half, live_latents(dictionary, Codes.concatenate(parts))


def _range(statistic: str) -> Bounds:
    return (0.0, 1.0) if statistic.startswith("shared") else (-1.0, 1.0)


def _rows(ids: Mapping[str, Any], runs: Mapping[str, LiveLatents], draws: np.random.Generator) -> list[dict[str, Any]]:
    """All pairs of runs; the floors are drawn for the first pair, since others differ only in how many latents live."""
    names = list(runs)
    found = {(a, b): compare(runs[names[a]], runs[names[b]]) for a, b in combinations(range(len(names)), 2)}
    floors = chance(runs[names[0]], runs[names[1]], draws)
    rule = next(iter(found.values()))[1]
    tables: dict[str, np.ndarray] = {}
    for (a, b), (values, _) in found.items():
        for statistic, value in (values | {"above_floor": above(values["mcc"], floors)}).items():
            table = tables.setdefault(statistic, np.full((len(names), len(names)), np.nan))
            table[a, b] = table[b, a] = value
    rows = []
    for statistic, table in tables.items():
        for a, b in found:
            pair = Estimate(float(table[a, b]), np.nan, np.nan, 2, "one pair of runs")
            rows.append({"statistic": statistic, **pair.row(f"{names[a]} and {names[b]}")})
        rows.append({"statistic": statistic, **pair_interval(table, _range(statistic)).row(ALL_SEEDS)})
    for statistic, value in floors.items():
        rows.append({"statistic": statistic, **Estimate(value, np.nan, np.nan, 2, "one draw").row(ALL_SEEDS)})
    return [{**ids, "matching": rule, **row} for row in rows]
