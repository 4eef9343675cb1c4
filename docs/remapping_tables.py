"""Tables and sentences of the pages about adaptations, made of the tables of a finished experiment by fixed rules."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final, Literal

import pandas as pd
from markup import cell, markdown, pick, rows_of

from conceptbench.config.model import Config
from conceptbench.figures.style import PUT_BACK
from conceptbench.inference import Estimate
from conceptbench.measures.intervals import difference_interval

HALF: Final = 0.5
"""Share of the gain that parts "rests on what was there" from "rests on what is new"."""
OWN: Final = ("followed", "own")
CONTROLS: Final[Mapping[str, tuple[str, str]]] = {
    "followed dictionary": OWN,
    "random dictionary": ("random", "own"),
    "relearnt dictionary": ("adapted", "own"),
    "matched latents": ("followed", "matched"),
    "sets of other classes": ("followed", "permuted"),
}
"""What a share is computed with, by title: dictionary and sets of the table `concepts`."""
RIVALS: Final = ("random dictionary", "matched latents", "sets of other classes")
"""Controls that stand for no concepts of the class: a conclusion means something where they say something else."""
BALANCED_K: Final = (10, 30, 100)
ORACLE_K: Final = (10, 100)
"""Latents kept or removed in the table of what knowing the class adds."""
MASKED_K: Final = (10, 100)
Row = tuple[str, str]
"""Task and adaptation."""


def main_concepts(concepts: pd.DataFrame, part: str) -> pd.DataFrame:
    """Pooled rows of a part in accuracy, at the q that has controls."""
    pooled = rows_of(concepts.astype({"seed": str}), seed="all", outcome="accuracy")
    main = pooled.loc[pooled["sets"] == "matched", "q"]
    return rows_of(pooled, part=part)[lambda table: table["q"].isin(main if len(main) else table["q"])]


def of_pair(table: pd.DataFrame, row: Row, which: tuple[str, str]) -> "pd.Series[Any] | None":
    """The row of a task and adaptation under a dictionary and sets."""
    return pick(table, task=row[0], method=row[1], dictionary=which[0], sets=which[1])


def pairs_of(table: pd.DataFrame) -> list[Row]:
    """Tasks and adaptations of a table, in order."""
    return sorted({(str(task), str(method)) for task, method in table[["task", "method"]].to_numpy()})


def scored_on(concepts: pd.DataFrame, accuracy: pd.DataFrame) -> str:
    """How many images the shares are scored on, beside the accuracies of trained classes."""
    few, many = (table.groupby("task", sort=False)["n"].max() for table in (concepts, rows_of(accuracy, half="base")))
    parts = [f"{few[task]:,} images of {task} (accuracies above: {many[task]:,})" for task in few.index]
    return f"Shares are scored on {' and '.join(parts)}, so fewer gains can be told from 0 here than there."


def controlled(concepts: pd.DataFrame, part: str) -> str:
    """A share of the gain with the followed dictionary and with each of its controls."""
    shown = main_concepts(concepts, part)
    lines = [
        [*row, *(cell(of_pair(shown, row, which), _absent(title)) for title, which in CONTROLS.items())]
        for row in pairs_of(shown)
    ]
    return markdown(pd.DataFrame(lines, columns=["task", "adaptation", *CONTROLS]))


def _absent(title: str) -> str:
    return "not learnt (`relearn`)" if title.startswith("relearnt") else "not measured"


Side = Literal["existing", "recruited", "open"]


def side_of(share: "pd.Series[Any] | None") -> Side:
    """Which half of the gain a recruited share speaks for: its whole interval below or above one half."""
    if share is None or pd.isna(share["low"]) or pd.isna(share["high"]):
        return "open"
    if share["high"] < HALF:
        return "existing"
    return "recruited" if share["low"] > HALF else "open"


def conclusion(concepts: pd.DataFrame, part: str = "beyond_share") -> str:
    """A paragraph: what the followed dictionary says of the gains, and whether that beats its controls.

    A side is taken where the whole interval of the recruited share lies below or above one half. It beats a control
    where the interval of their difference (as if independent, so too wide rather than too narrow) excludes 0 on that
    side.
    """
    shown = main_concepts(concepts, part)
    found = {row: side_of(of_pair(shown, row, OWN)) for row in pairs_of(shown)}
    counted = {side: [row for row, of in found.items() if of == side] for side in ("existing", "recruited", "open")}
    decided = [*counted["existing"], *counted["recruited"]]
    text = [
        f"Measured as {PUT_BACK}, the followed dictionary says of {_several(counted['existing'], found)} that less "
        f"than half of the gain is recruited, of {len(counted['recruited'])} that more than half is, and leaves "
        f"{len(counted['open'])} open (the whole 95 % interval decides; a gain not told from 0 leaves it open)."
    ]
    if decided:
        text += [_against_controls(shown, found, decided), _relearnt(shown, found)]
    return " ".join(part for part in text if part)


def _several(some: Sequence[Row], whole: Mapping[Row, Side]) -> str:
    return f"{len(some)} of {len(whole)} pairs of task and adaptation"


def _against_controls(shown: pd.DataFrame, found: Mapping[Row, Side], decided: Sequence[Row]) -> str:
    beaten = {title: [row for row in decided if _beats(shown, row, found[row], CONTROLS[title])] for title in RIVALS}
    counts = ", ".join(f"{len(rows)} against the {title}" for title, rows in beaten.items())
    both = [row for row in decided if all(row in rows for rows in beaten.values())]
    text = f"Conclusions that say something which a control does not, out of {len(decided)}: {counts}"
    if len(both) == len(decided):
        return f"{text}. The conclusions beat their controls."
    if both:
        names = ", ".join(f"{method} on {task}" for task, method in both)
        return (
            f"{text}. Only those about {names} beat all of their controls; the rest may be what any latents would say."
        )
    return f"{text}. No conclusion beats all of its controls: what is said here may be what any latents would say."


def _beats(shown: pd.DataFrame, row: Row, side: Side, control: tuple[str, str]) -> bool:
    mine, other = of_pair(shown, row, OWN), of_pair(shown, row, control)
    if mine is None or other is None:
        return False
    gap = difference_interval(_estimate(other), _estimate(mine))
    return gap.low > 0 if side == "existing" else gap.high < 0


def _estimate(row: "pd.Series[Any]") -> Estimate:
    return Estimate(*(float(row[name]) for name in ("estimate", "low", "high")), int(row["n"]))


def _relearnt(shown: pd.DataFrame, found: Mapping[Row, Side]) -> str:
    again = {row: of_pair(shown, row, CONTROLS["relearnt dictionary"]) for row in found}
    sides = {row: (found[row], side_of(share)) for row, share in again.items() if share is not None}
    if not sides:
        return "No dictionary was learnt on an adapted model to check them."
    unlike = [f"{method} on {task} ({b})" for (task, method), (a, b) in sides.items() if a != b]
    same = f"{len(sides) - len(unlike)} of {len(sides)}"
    text = f"The dictionary learnt on the adapted model takes the same side in {same}"
    return f"{text}." if not unlike else f"{text}; not for {', '.join(unlike)}."


def converse(concepts: pd.DataFrame) -> str:
    """The share of the gain that zero-shot activations get when only the others move, beside matched latents."""
    shown = main_concepts(concepts, "sufficient_share")
    which = {"others moved": OWN, "matched latents moved": ("followed", "matched")}
    lines = [[*row, *(cell(of_pair(shown, row, of)) for of in which.values())] for row in pairs_of(shown)]
    return markdown(pd.DataFrame(lines, columns=["task", "adaptation", *which]))


def sweep(concepts: pd.DataFrame) -> str:
    """The share recruited (others put back) at every q."""
    pooled = rows_of(concepts.astype({"seed": str}), seed="all", outcome="accuracy", part="beyond_share")
    shown = rows_of(pooled, dictionary=OWN[0], sets=OWN[1])
    qs = sorted(shown["q"].unique())
    lines = [
        [task, method, *(cell(pick(shown, task=task, method=method, q=q)) for q in qs)]
        for task, method in pairs_of(shown)
    ]
    return markdown(pd.DataFrame(lines, columns=["task", "adaptation", *(f"q = {q:g}" for q in qs)]))


def three_way(decomposition: pd.DataFrame) -> str:
    """Shares of the gain on trained classes through perception, the blocks above the hook point, and the text side."""
    shown = rows_of(decomposition.astype({"seed": str}), seed="all", outcome="accuracy", players=3, variant="averaged")
    shown = shown[shown["half"].isin(["base", "all"])]
    parts = {"perception": "perception_share", "blocks above": "blocks_share", "text side": "text_share"}
    lines = [
        [task, method, *(cell(pick(shown, task=task, method=method, part=part)) for part in parts.values())]
        for task, method in pairs_of(shown)
    ]
    return markdown(pd.DataFrame(lines, columns=["task", "adaptation", *parts]))


def validity(table: pd.DataFrame) -> str:
    """FVU, L0 and dead share of the followed dictionary before and after, of one learnt there, and the verdict.

    Differences of FVU and their margin are shown where the table has them.
    """
    pooled = rows_of(table.astype({"seed": str}), seed="all")
    places = {"zero-shot": "followed-on-zero-shot", "adapted": "followed", "relearnt": "adapted"}
    names = {"fvu": "FVU", "l0": "L0", "dead_share": "dead"}
    lines = []
    for task, method in pairs_of(pooled):
        mine = rows_of(pooled, task=task, method=method)
        cells = [
            cell(pick(mine, statistic=statistic, dictionary=of), "not learnt" if of == "adapted" else "not measured")
            for statistic, of in product(names, places.values())
        ]
        followed = rows_of(mine, dictionary="followed")
        lines.append([task, method, *_verdict(followed), *cells])
    heads = [f"{name}, {place}" for name, place in product(names.values(), places)]
    judged = ["valid", "margin", "FVU over zero-shot", "FVU over relearnt"]
    return markdown(pd.DataFrame(lines, columns=["task", "adaptation", *judged, *heads]))


def _verdict(followed: pd.DataFrame) -> list[str]:
    """Whether the followed dictionary is valid, the margin, and the two differences that it is held against."""
    judged = [cell(pick(followed, statistic=name), "not measured") for name in ("fvu_rise", "fvu_excess")]
    margins = followed["margin"].dropna() if "margin" in followed else pd.Series(dtype=float)
    margin = f"{margins.iloc[0]:.3f}" if len(margins) else "not given"
    if "valid" not in followed or followed.empty:
        return ["not decided", margin, *judged]
    return ["yes" if followed["valid"].all() else "no", margin, *judged]


def agreement(table: pd.DataFrame) -> str:
    """Correlation of first-order and exact effects, over all (latent, class) and between classes."""
    whole = table.astype({"seed": str})
    pooled = whole[whole["seed"] == "all"] if (whole["seed"] == "all").any() else whole
    columns = {"estimate": "all latents and classes", "between_classes": "between classes"}
    means = pooled.groupby(["task", "model"], sort=True)[[name for name in columns if name in pooled]].mean()
    return markdown(means.rename(columns=columns).map("{:.3f}".format).reset_index())


def balance(table: pd.DataFrame) -> str:
    """Own latents of the class against their matched control on zero-shot activations, and how many they share."""
    where = {"model": "zero-shot", "dense": "kept", "seed": "all"}
    shown = rows_of(table.astype({"seed": str}), **where)
    names = {"active_latents": "active latents", "mass_share": "share of the mass", "frequency": "frequency"}
    lines = []
    for task, k in product(sorted(shown["task"].unique()), BALANCED_K):
        of = {name: rows_of(shown, task=task, k=k, selection=name) for name in ("true", "matched")}
        if any(rows.empty for rows in of.values()):
            continue
        cells = [
            "{:.3g} / {:.3g}".format(*(rows.loc[rows["outcome"] == name, "estimate"].iloc[0] for rows in of.values()))
            for name in names
        ]
        control = of["matched"].iloc[0]
        lines.append([task, k, *cells, f"{control['shared']:.2f}", f"{control['disjoint']:.2f}"])
    heads = ["task", "k", *(f"{name}, own / control" for name in names.values()), "latents shared", "can be disjoint"]
    return markdown(pd.DataFrame(lines, columns=heads))


def readings(masking: pd.DataFrame) -> str:
    """Zero-shot under the own class's latents and their control: log-likelihood, KL, and with dense latents last."""
    where = {"model": "zero-shot", "selected_by": "zero-shot", "edit": "keep-error", "seed": "all"}
    shown = rows_of(masking.astype({"seed": str}), **where)
    wanted = {
        "log-likelihood": ("log_likelihood", "kept"),
        "KL (nats)": ("kl", "kept"),
        "accuracy, dense last": ("accuracy", "filtered"),
    }
    lines = [
        [task, way, k, *cells]
        for task, way, k in product(sorted(shown["task"].unique()), ("on", "off"), MASKED_K)
        if any(cells := _cells(rows_of(shown, task=task, direction=way, k=k), wanted.values()))
    ]
    heads = [f"{title}, {of}" for title, of in product(wanted, ("own", "control"))]
    return markdown(pd.DataFrame(lines, columns=["task", "mask", "k", *heads]))


def _cells(rows: pd.DataFrame, wanted: Any) -> list[str]:
    return [
        cell(pick(rows, outcome=outcome, dense=dense, selection=selection), "")
        for (outcome, dense), selection in product(wanted, ("true", "matched"))
    ]


def oracle(contrasts: pd.DataFrame) -> str:
    """Masks by the true class against those by the predicted one, a wrong one and matched latents, for two k."""
    where = {"model": "zero-shot", "selected_by": "zero-shot", "edit": "keep-error", "dense": "kept", "seed": "all"}
    mine = rows_of(contrasts, **where, outcome="accuracy")
    mine = mine[mine["k"].isin(ORACLE_K)]
    shown = ("true-predicted", "true-wrong", "true-matched", "predicted-matched")
    lines = [
        [task, way, k, *(cell(pick(group, selection=name), "") for name in shown)]
        for (task, way, k), group in mine.groupby(["task", "direction", "k"])
    ]
    return markdown(pd.DataFrame(lines, columns=["task", "mask", "k", *(name.replace("-", " - ") for name in shown)]))


def recipes(config: Config) -> str:
    """Every option of an adaptation in which the experiment departs from the published recipe (the default)."""
    lines = [
        [name, option, published, here]
        for name, method in config.adaptations.methods.items()
        for option, published, here in _departures(method)
    ]
    return markdown(pd.DataFrame(lines, columns=["adaptation", "option", "published", "here"]))


def _departures(method: Any) -> Iterator[tuple[str, object, object]]:
    for option, field in type(method).model_fields.items():
        if field.is_required():
            continue
        here, published = getattr(method, option), field.get_default(call_default_factory=True)
        if here == published:
            continue
        if option == "templates":
            here, published = f"{len(here)} prompts", "60 prompts"
        yield option, published, here
