"""The paragraphs of a page about planted adaptations, made of the table `plants` by fixed rules."""

from typing import Any, Final

import pandas as pd
from markup import cell, markdown, pick, rows_of

from conceptbench.figures.style import PUT_BACK
from conceptbench.measures.plant_summary import ABOVE, ALLOWED, BELOW, COVERAGE_ASKED

UNTUNED: Final = "recruit-any"
"""The plant that is outside of the pass line."""
RECRUITING: Final = ("recruit", "mixed")
LEAST: Final = 1e-9
PARTS: Final = {
    "gain": "gain",
    "perception": "perception",
    "mapping": "mapping",
    "existing": "existing",
    "recruited": "recruited",
    "beyond": PUT_BACK,
    "remapping": "claim of remapping",
}
ESTIMATED: Final = {part: title for part, title in PARTS.items() if part != "remapping"}
CLAIMS: Final = {
    "recruitment": "recruitment, as a study publishes it",
    "recruitment_by_beyond": f"{PUT_BACK}: above 0",
    "recruitment_by_recruited": "recruited: above 0",
    "remapping": "remapping",
}
EXACT: Final = "exact"


def planted(plants: pd.DataFrame) -> list[str]:
    """What the estimators do part by part, the sentence that weighs them, claims, and the pooled number."""
    shown = rows_of(plants, outcome="accuracy")
    single, pooled = rows_of(shown, models=1), rows_of(shown, models=3)
    low, high = COVERAGE_ASKED
    return [
        "## The estimators on planted adaptations",
        "Adaptations made by hand, whose truth is known. `recruit` and `mixed` are tuned to what the dictionary can "
        "see: atoms that it measures best, and a readout with a threshold that what their edit leaves does not reach. "
        f"They ask whether the estimators find what is there to be found. `{UNTUNED}` takes any silent atoms and no "
        "threshold: what it misses, an estimate on a real adaptation may miss too. It is outside of the pass line.",
        *_without_effect(single),
        "Coverage of the 95 % intervals of one model, with its Monte Carlo interval "
        f"({_repetitions(single)} repetitions of each plant: with few of them nearly everything is compatible). Asked: "
        f"{low:.2f} to {high:.2f}; what is not compatible with that is marked *below* or *above*. Exact: every image "
        "agrees, and the estimate is the truth.",
        _by_part(single, "coverage", PARTS),
        weighed(single),
        *_of_three(pooled),
        "Mean error in accuracy, with the interval over the plants' seeds:",
        _by_part(single, "bias", ESTIMATED),
        f"Claims: false where nothing is recruited or remapped (allowed: {ALLOWED:.2f}), power where something is. A "
        "study publishes a share only where the gain is distinguishable from 0; the next two columns do without that.",
        markdown(pd.DataFrame(_claims(single), columns=["plant", "rate", *CLAIMS.values()])),
        f"Pooled over gain, perception, mapping and {PUT_BACK}, and on `null` the claim of remapping: one number a "
        "plant, in which a part that is covered too rarely may hide behind one that is always covered.",
        markdown(pd.DataFrame(_joined(single), columns=["plant", "pooled coverage", "least covered", "size of error"])),
    ]


def _without_effect(single: pd.DataFrame) -> list[str]:
    """Plants that should recruit and change no answer here: their truth is 0."""
    truth = rows_of(single, part="recruited", statistic="truth").set_index("plant")["estimate"]
    idle = [f"`{plant}`" for plant in RECRUITING if abs(float(truth.get(plant, 1.0))) < LEAST]
    if not idle:
        return []
    return [
        f"On these images nothing is recruited by {' and '.join(idle)}: the planted truth is 0, so that they say "
        "nothing of the power to find it."
    ]


def weighed(single: pd.DataFrame) -> str:
    """What is not compatible with the pass line, the untuned plant left out."""
    judged = single[(single["plant"] != UNTUNED) & single["asked"].isin([BELOW, ABOVE])]
    judged = judged[judged["part"].isin(list(PARTS) + list(CLAIMS))]
    if judged.empty:
        return (
            f"Apart from `{UNTUNED}`, which is outside of the pass line, no coverage and no rate of false claims is "
            "incompatible with what is asked for."
        )
    kinds = {"coverage": "coverage", "false_positive_rate": "false positives"}
    found = [
        f"{row['plant']}, {(PARTS | CLAIMS)[row['part']]}: {kinds[row['statistic']]} {row['estimate']:.2f} "
        f"({row['asked']})"
        for _, row in judged[judged["statistic"].isin(kinds)].iterrows()
    ]
    return f"Not compatible with what is asked for: {'; '.join(found)}."


def _repetitions(single: pd.DataFrame) -> int:
    """Samples of images of each plant."""
    return int(rows_of(single, part="gain", statistic="bias")["n"].max())


def _of_three(pooled: pd.DataFrame) -> list[str]:
    """The same for three models pooled; experiments with fewer than three planted seeds have none."""
    if pooled.empty:
        return [
            "Three models pooled, as studies pool their seeds, need three planted seeds; this experiment has fewer."
        ]
    return [
        "The same for three models pooled as studies pool their seeds (t interval over images and seeds), against the "
        "mean truth of all planted seeds. It is wide, because three seeds say little about all.",
        _by_part(pooled, "coverage_of_all", ESTIMATED),
    ]


def _by_part(shown: pd.DataFrame, statistic: str, parts: dict[str, str]) -> str:
    """A row a plant, a column a part."""
    lines = [
        [plant, *(_marked(pick(shown, plant=plant, part=part, statistic=statistic)) for part in parts)]
        for plant in dict.fromkeys(shown["plant"])
    ]
    return markdown(pd.DataFrame(lines, columns=["plant", *parts.values()]))


def _marked(row: "pd.Series[Any] | None") -> str:
    """An estimate, and whether it misses what is asked for."""
    if row is None:
        return ""
    if str(row["note"]).startswith(EXACT):
        return EXACT
    return f"{cell(row)} *{row['asked']}*" if row["asked"] in (BELOW, ABOVE) else cell(row)


def _claims(single: pd.DataFrame) -> list[list[str]]:
    """False positives and power of each claim, a row a plant."""
    lines = []
    for plant in dict.fromkeys(single["plant"]):
        for statistic, title in (("false_positive_rate", "false"), ("power", "power")):
            mine = [_marked(pick(single, plant=plant, part=claim, statistic=statistic)) for claim in CLAIMS]
            lines += [[plant, title, *mine]] if any(mine) else []
    return lines


def _joined(single: pd.DataFrame) -> list[list[str]]:
    """Pooled coverage, the part covered least with its name, and the mean size of the error."""
    lines = []
    for plant, group in rows_of(single, part="all").groupby("plant", sort=False):
        whole, worst, size = (pick(group, statistic=name) for name in ("coverage", "worst_coverage", "bias"))
        least = "" if worst is None else f"{PARTS[worst['note']]}: {cell(worst)}"
        lines.append([str(plant), cell(whole), least, cell(size)])
    return lines
