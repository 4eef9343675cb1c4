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
from conceptbench.measures.stability import LiveLatents, above, compare, floors, live_latents, random_floor
from conceptbench.seeds import rng

BATCH: Final = 512
COLUMNS: Final = (
    *("backbone", "block", "dictionary", "family", "runs", "matching", "statistic"),
    *("estimate", "low", "high", "n", "seed", "note"),
)
SHUFFLED: Final = {"mcc": "floor_shuffled"}
"""Floors that are not named after their statistic."""


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
        halves of them), matching (assignment, mutual nearest), statistic (those of `compare`; the same of shuffled
        runs, the floors, as floor_<statistic> but floor_shuffled for that of mcc; floor_random; above_floor: all in
        `conceptbench.measures.stability`), estimate, low, high, n (runs), seed (the two runs, "a and b", or "all"),
        note.
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
    return (0.0, 1.0) if statistic.removeprefix("floor_").startswith("shared") else (-1.0, 1.0)


def _rows(ids: Mapping[str, Any], runs: Mapping[str, LiveLatents], draws: np.random.Generator) -> list[dict[str, Any]]:
    """All pairs of runs with their floors; random atoms are drawn for the first pair: others differ in number alone."""
    names, latents = list(runs), list(runs.values())
    found = {(a, b): compare(latents[a], latents[b]) for a, b in combinations(range(len(names)), 2)}
    lowest = random_floor(latents[0], latents[1], draws)
    drawn = floors(latents, draws)
    rule = next(iter(found.values()))[1]
    tables: dict[str, np.ndarray] = {}
    for (a, b), (values, _) in found.items():
        chance = {SHUFFLED.get(name, f"floor_{name}"): value for name, value in drawn[a, b].items()}
        over = {"above_floor": above(values["mcc"], lowest, chance["floor_shuffled"])}
        for statistic, value in (values | chance | over).items():
            table = tables.setdefault(statistic, np.full((len(names), len(names)), np.nan))
            table[a, b] = table[b, a] = value
    rows = []
    for statistic, table in tables.items():
        for a, b in found:
            pair = Estimate(float(table[a, b]), np.nan, np.nan, 2, "one pair of runs")
            rows.append({"statistic": statistic, **pair.row(f"{names[a]} and {names[b]}")})
        rows.append({"statistic": statistic, **pair_interval(table, _range(statistic)).row(ALL_SEEDS)})
    rows.append({"statistic": "floor_random", **Estimate(lowest, np.nan, np.nan, 2, "one draw").row(ALL_SEEDS)})
    return [{**ids, "matching": rule, **row} for row in rows]
