"""Tables of the page about dictionaries, made of the tables of a finished experiment by fixed rules."""

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Final

import numpy as np
import pandas as pd
from markup import Metrics, bracket, interval, markdown

from conceptbench.measures.intervals import seed_interval

KINDS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "K-SVD, both signs": ("configured", ("k-svd",)),
    "K-SVD, non-negative": ("configured", ("k-svd-positive",)),
    "autoencoder": ("family", ("topk", "batch-topk", "matryoshka", "jump-relu", "archetypal", "relu-l1")),
    "PCA": ("family", ("pca",)),
}
"""What is compared as one kind: values of a column of the Pareto table. A sign doubles what an atom can say, so the two
K-SVDs are kinds of their own."""
COMPARED_AT: Final = (4, 8, 16)
NEAR: Final = 0.05
"""Share by which an L0 may differ from the one compared at."""


AGAINST: Final = ("K-SVD, non-negative", "autoencoder")
"""The two kinds that are like with like."""
CLAIMED: Final = 4.0
"""Two thirds over a sixth."""


def rivals(pareto: pd.DataFrame, metrics: Metrics) -> str:
    """The dictionary of each kind that recovers most energy at some L0, as a table.

    The first seed of the table chooses, the others report. Where a kind has one dictionary at this L0 there is nothing
    to choose, and all its seeds are reported.
    """
    lines = []
    for (wanted, kind), (candidates, told) in chosen(pareto).items():
        best = told["dictionary"].iloc[0]
        cells = [_over_seeds(told[f"recovered_{unit}"]) for unit in ("energy", "norm")]
        recovered = interval(metrics, f"truth.{best}.recovered_at_0.90")
        lines.append([wanted, kind, candidates, best, ", ".join(told["seed"]), *cells, recovered])
    heads = ["L0", "kind", "of", "dictionary", "seeds", "signal in energy", "signal in norm", "factor values recovered"]
    return markdown(pd.DataFrame(lines, columns=heads))


def chosen(pareto: pd.DataFrame) -> dict[tuple[int, str], tuple[int, pd.DataFrame]]:
    """(number of candidates, rows of the chosen dictionary by seed) of every L0 and kind that has any."""
    single = pareto[pareto["seed"] != "all"]
    names = ["dictionary", "configured", "family", "seed"]
    wide = single.pivot(index=names, columns="statistic", values="estimate").reset_index()
    found = {}
    for wanted, (kind, (column, values)) in product(COMPARED_AT, KINDS.items()):
        near = wide[wide[column].isin(values) & ((wide["l0"] - wanted).abs() <= NEAR * wanted)]
        candidates = near[near["seed"] == single["seed"].iloc[0]]
        if candidates.empty:
            continue
        best = candidates.loc[candidates["recovered_energy"].idxmax(), "dictionary"]
        mine = wide[wide["dictionary"] == best]
        others = mine[mine["seed"] != single["seed"].iloc[0]]
        found[wanted, kind] = len(candidates), mine if len(candidates) == 1 or others.empty else others
    return found


def verdict(pareto: pd.DataFrame) -> str:
    """What the table says of the claimed ratio, in a sentence; empty where no L0 has both kinds."""
    found = chosen(pareto)
    shared = [wanted for wanted in COMPARED_AT if all((wanted, kind) in found for kind in AGAINST)]
    if not shared:
        return ""
    ratios = {}
    for unit in ("energy", "norm"):
        means = [[float(found[at, kind][1][f"recovered_{unit}"].mean()) for kind in AGAINST] for at in shared]
        ratios[unit] = [ours / theirs for ours, theirs in means]
    largest = max(max(values) for values in ratios.values())
    told = " and ".join(f"{_listed(f'{value:.2f}' for value in ratios[unit])} times the {unit}" for unit in ratios)
    judged = (
        "so the claimed ratio is not found here"
        if largest < CLAIMED / 2
        else "so a ratio of at least half the claimed one is found here"
    )
    return (
        f"At L0 {_listed(map(str, shared))} the non-negative K-SVD recovers {told} that the best autoencoder does; "
        f"two thirds against a sixth would be {CLAIMED:.2f} times, {judged}."
    )


def _listed(parts: Iterable[str]) -> str:
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def _over_seeds(values: pd.Series) -> str:
    """Mean over seeds with its t interval."""
    found = seed_interval(values.to_numpy(dtype=np.float64), (-np.inf, 1.0))
    return bracket(found.estimate, found.low, found.high)


def at_equal_l0(pareto: pd.DataFrame) -> pd.DataFrame:
    """Rows of the Pareto table by L0, the most signal first."""
    pooled = pareto[pareto["seed"] == "all"]
    wide = pooled.pivot(index="dictionary", columns="statistic", values="estimate").reset_index()
    wide = wide.assign(nearest=wide["l0"].round()).sort_values(["nearest", "recovered_energy"], ascending=[True, False])
    columns = {"dictionary": "dictionary", "l0": "L0", "recovered_energy": "in energy", "recovered_norm": "in norm"}
    return (
        wide[list(columns)]
        .rename(columns=columns)
        .map(lambda value: value if isinstance(value, str) else f"{value:.3f}")
    )
