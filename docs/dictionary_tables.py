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
    "k-means, coded by pursuit": ("configured", ("k-means-omp",)),
    "autoencoder": ("family", ("topk", "batch-topk", "matryoshka", "jump-relu", "archetypal", "relu-l1")),
    "PCA": ("family", ("pca",)),
}
"""What is compared as one kind: values of a column of the Pareto table. A sign doubles what an atom can say, so the two
K-SVDs are kinds of their own."""
COMPARED_AT: Final = (4, 8, 16)
NEAR: Final = 0.05
"""Share by which an L0 may differ from the one compared at."""

AGAINST: Final = ("K-SVD, non-negative", "autoencoder")
UNITS: Final = ("energy", "norm")
CLAIMED: Final = (2 / 3, 1 / 6)
"""What K-SVD and what autoencoders are said to recover."""


def rivals(pareto: pd.DataFrame, metrics: Metrics) -> str:
    """The dictionary of each kind that recovers most energy at some L0, as a table.

    The first seed of the table chooses, the others report. Where a kind has one dictionary at this L0 there is nothing
    to choose, and all its seeds are reported.
    """
    lines = []
    for (wanted, kind), (candidates, mine) in chosen(pareto).items():
        told = mine if candidates == 1 else _reporting(mine, pareto)
        best = mine["dictionary"].iloc[0]
        cells = [_over_seeds(told[f"recovered_{unit}"]) for unit in UNITS]
        recovered = interval(metrics, f"truth.{best}.recovered_at_0.90")
        lines.append([wanted, kind, candidates, best, ", ".join(told["seed"]), *cells, recovered])
    heads = [
        *("L0", "kind", "of", "dictionary", "seeds", "signal in energy", "signal in norm"),
        "factor values recovered at AUROC 0.90",
    ]
    return markdown(pd.DataFrame(lines, columns=heads))


def chosen(pareto: pd.DataFrame, unit: str = "energy") -> dict[tuple[int, str], tuple[int, pd.DataFrame]]:
    """(number of candidates, rows of the chosen dictionary by seed) of every L0 and kind that has any.

    The one that recovers most of the signal in this unit with the first seed of the table is chosen.
    """
    single = pareto[pareto["seed"] != "all"]
    names = ["dictionary", "configured", "family", "seed"]
    wide = single.pivot(index=names, columns="statistic", values="estimate").reset_index()
    found = {}
    for wanted, (kind, (column, values)) in product(COMPARED_AT, KINDS.items()):
        near = wide[wide[column].isin(values) & ((wide["l0"] - wanted).abs() <= NEAR * wanted)]
        candidates = near[near["seed"] == _first_seed(pareto)]
        if candidates.empty:
            continue
        best = candidates.loc[candidates[f"recovered_{unit}"].idxmax(), "dictionary"]
        found[wanted, kind] = len(candidates), wide[wide["dictionary"] == best]
    return found


def verdict(pareto: pd.DataFrame, metrics: Metrics) -> str:
    """What the table says of the claimed ratio, in sentences; empty where no L0 has both kinds."""
    by_energy = chosen(pareto)
    shared = [wanted for wanted in COMPARED_AT if all((wanted, kind) in by_energy for kind in AGAINST)]
    if not shared:
        return ""
    pairs = {
        unit: [[_reporting(chosen(pareto, unit)[at, kind][1], pareto) for kind in AGAINST] for at in shared]
        for unit in UNITS
    }
    gained = [_listed(_ratio(*pair, f"recovered_{unit}") for pair in pairs[unit]) for unit in UNITS]
    left = _listed(_ratio(*pair, "recovered_energy", left=True) for pair in pairs["energy"])
    least = min(float(other["recovered_energy"].mean()) for _, other in pairs["energy"])
    claim = f"Two thirds against a sixth would be {CLAIMED[0] / CLAIMED[1]:.0f} times. "
    claim += (
        f"Autoencoders that recover a sixth are not found here: the least of these recovers {least:.2f} of the energy, "
        f"so that no method can recover more than {1 / least:.2f} times as much."
        if least > 2 * CLAIMED[1]
        else f"The least of these autoencoders recovers {least:.2f} of the energy."
    )
    values = [
        _listed(_recovered(metrics, by_energy[at, kind][1]["dictionary"].iloc[0]) for at in shared) for kind in AGAINST
    ]
    return (
        f"At L0 {_listed(map(str, shared))} the non-negative K-SVD recovers {gained[0]} times the energy, and "
        f"{gained[1]} times the norm, of the autoencoder that recovers most in that unit with the first seed (mean "
        f"ratio over the other seeds, with its t interval). It leaves {left} times the variance unexplained. {claim} "
        f"Of the factor values it recovers {values[0]}, these autoencoders {values[1]}."
    )


def training(methods: Mapping[str, object], dictionaries: pd.DataFrame) -> str:
    """What each method is given, as a table: passes over the tokens, steps and rates, or the sample it is fitted to.

    Args:
        methods: specification by dictionary. dictionaries: the table of that name, with the `tokens` each one saw.
    """
    tokens = dictionaries.groupby("dictionary")["tokens"].max()
    rates: dict[tuple[object, ...], set[str]] = {}
    for name, spec in methods.items():
        epochs, batch, sample = (getattr(spec, part, None) for part in ("epochs", "batch_size", "sample"))
        if not (batch or sample):
            continue
        steps = f"{int(tokens[name]) // batch:,} of {batch:,} tokens" if batch else ""
        key = (spec.method, epochs or "", steps, f"{sample or int(tokens[name] / epochs):,}")  # type: ignore[attr-defined]
        rates.setdefault(key, set()).update([f"{spec.lr:g}"] if hasattr(spec, "lr") else [])
    lines = [[*key, ", ".join(sorted(tried))] for key, tried in sorted(rates.items(), key=str)]
    heads = ["method", "passes", "steps", "training tokens", "learning rates tried"]
    return markdown(pd.DataFrame(lines, columns=heads))


def _first_seed(pareto: pd.DataFrame) -> str:
    return str(pareto.loc[pareto["seed"] != "all", "seed"].iloc[0])


def _reporting(mine: pd.DataFrame, pareto: pd.DataFrame) -> pd.DataFrame:
    """The rows of the seeds that did not choose; all where there is no other."""
    others = mine[mine["seed"] != _first_seed(pareto)]
    return mine if others.empty else others


def _ratio(one: pd.DataFrame, other: pd.DataFrame, column: str, left: bool = False) -> str:
    """Mean ratio over the seeds that both have, of what is recovered or of what is `left`, with its t interval."""
    values = [table.set_index("seed")[column] for table in (one, other)]
    above, below = (1 - column if left else column for column in values)
    ratios = (above / below).dropna().to_numpy(dtype=np.float64)
    found = seed_interval(ratios, (0.0, np.inf))
    around = f" ({found.low:.2f} to {found.high:.2f})" if np.isfinite(found.low) else ""
    return f"{found.estimate:.2f}{around}"


def _recovered(metrics: Metrics, name: str) -> str:
    value = metrics.get(f"truth.{name}.recovered_at_0.90")
    return "an unknown share" if value is None else f"{value:.2f}"


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
