"""Error against sparsity: what each dictionary reconstructs with how many latents, with intervals over seeds."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from conceptbench.errors import ConceptBenchError
from conceptbench.inference import Estimate
from conceptbench.measures.intervals import seed_interval
from conceptbench.measures.nulls import NULL_METHODS
from conceptbench.measures.resampling import ALL_SEEDS, Bounds

STATISTICS: Final[Mapping[str, Bounds]] = {
    "fvu": (0.0, np.inf),
    "l0": (0.0, np.inf),
    "recovered_energy": (-np.inf, 1.0),
    "recovered_norm": (-np.inf, 1.0),
}
"""Statistics and their ranges. Signal recovered in energy is 1 - FVU; in norm see `dictionaries.evaluate`."""
IDS: Final = ("backbone", "block", "dictionary")


def measure_pareto(
    dictionaries: pd.DataFrame, methods: Mapping[str, str], configured: Mapping[str, str]
) -> pd.DataFrame:
    """Table ``pareto``: FVU, L0 and signal recovered of every dictionary on held-out tokens.

    Args:
        dictionaries: the table ``dictionaries``. methods: dictionary -> method. configured: dictionary -> what it is
            called when its sparsity is left aside; dictionaries of one such name are points of one curve.

    Returns:
        backbone, block, dictionary, configured, family (the method), role (learned, null), width, on_front (no learned
        dictionary of the hook point has both a smaller or equal L0 and a smaller FVU; false for nulls), statistic
        (fvu, l0, recovered_energy, recovered_norm), estimate, low, high (t interval over seeds), n (seeds), seed, note.

    Raises:
        ConceptBenchError: when a dictionary of the table is not configured.
    """
    unknown = sorted(set(dictionaries["dictionary"]) - (methods.keys() & configured.keys()))
    if unknown:
        raise ConceptBenchError(f"Table dictionaries has {', '.join(unknown)}, which is not configured; make it again.")
    table = dictionaries.assign(recovered_energy=1 - dictionaries["fvu"])
    front = _front(table[~table["dictionary"].map(methods).isin(NULL_METHODS)])
    rows: list[dict[str, Any]] = []
    for names, part in table.groupby(list(IDS), sort=False):
        key = tuple(names)
        family = methods[str(key[2])]
        ids = dict(zip(IDS, key, strict=True)) | {"configured": configured[str(key[2])], "family": family}
        ids |= {"role": "null" if family in NULL_METHODS else "learned", "width": int(part["width"].iloc[0])}
        for statistic, bounds in STATISTICS.items():
            values = part[statistic].to_numpy(dtype=np.float64)
            common = {**ids, "on_front": key in front, "statistic": statistic}
            for seed, value in zip(part["seed"], values, strict=True):
                note = "one seed" if np.isfinite(value) else "not measured"
                rows.append({**common, **Estimate(float(value), np.nan, np.nan, 1, note).row(str(seed))})
            rows.append({**common, **seed_interval(values, bounds).row(ALL_SEEDS)})
    return pd.DataFrame(rows)


def _front(learned: pd.DataFrame) -> set[tuple[Any, ...]]:
    """Dictionaries whose means over seeds no other of their hook point beats in both L0 and FVU."""
    means = learned.groupby(list(IDS), sort=False)[["l0", "fvu"]].mean().reset_index()
    found = set()
    for _, hook in means.groupby(["backbone", "block"], sort=False):
        for _, row in hook.iterrows():
            better = (hook["l0"] <= row["l0"]) & (hook["fvu"] <= row["fvu"])
            strictly = (hook["l0"] < row["l0"]) | (hook["fvu"] < row["fvu"])
            if not (better & strictly).any():
                found.add(tuple(row[name] for name in IDS))
    return found
