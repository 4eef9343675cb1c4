"""Which latents the exemplar figure shows: rules that are fixed before anyone looks at an image."""

import pandas as pd

from conceptbench.figures.style import require


def choose_by_factor(
    truth_factors: pd.DataFrame, *, backbone: str, block: int, dictionary: str, seed: str = "0", count: int = 6
) -> pd.DataFrame:
    """Latents for the figure where factors are known: the rule is fixed before anyone looks at the images.

    Factors take turns in the order of the table; each turn takes the factor's value with the largest AUROC on split A
    whose latent is not taken yet. Only latents that fire for the value (sign +1) can be shown.

    Returns:
        latent, title ("colour = red"), score (AUROC on split A), in the order chosen; at most `count` rows.
    """
    columns = ("backbone", "block", "dictionary", "seed", "factor", "value", "metric", "latent", "sign", "selected")
    table = require(truth_factors, "truth_factors", columns)
    of_dictionary = (table["backbone"] == backbone) & (table["block"] == block) & (table["dictionary"] == dictionary)
    usable = (table["metric"] == "auroc") & (table["sign"] > 0) & (table["latent"] >= 0) & table["selected"].notna()
    rows = table[of_dictionary & usable & (table["seed"] == str(seed))]
    queues = {
        factor: frame.sort_values("selected", ascending=False, kind="stable").to_dict("records")
        for factor, frame in rows.groupby("factor", sort=False)
    }
    taken: dict[int, dict[str, object]] = {}
    while len(taken) < count and any(queues.values()):
        for factor, queue in queues.items():
            while queue and queue[0]["latent"] in taken:
                queue.pop(0)
            if queue and len(taken) < count:
                best = queue.pop(0)
                title = f"{factor!s} = {best['value']}"
                taken[int(best["latent"])] = {"latent": int(best["latent"]), "title": title, "score": best["selected"]}
    return pd.DataFrame(list(taken.values()), columns=["latent", "title", "score"])


def choose_by_labels(
    latents: pd.DataFrame,
    *,
    backbone: str,
    block: int,
    dictionary: str,
    dataset: str,
    seed: str = "0",
    count: int = 6,
    most_frequent: float = 0.5,
) -> pd.DataFrame:
    """Latents for the figure where no factors are known: those whose exemplars share a class, the strongest first.

    Kept: alive, not dense, firing on at most `most_frequent` of the images, with a full list of exemplars. Sorted by
    label entropy (two decimals), then by mean activation; without labels by mean activation alone.

    Returns:
        latent, title, score (label entropy), in the order chosen; at most `count` rows.
    """
    columns = ("backbone", "block", "dictionary", "seed", "dataset", "latent", "frequency_image", "mean_activation",
               "label_entropy", "n_reference", "dead", "dense")  # fmt: skip
    table = require(latents, "latents", columns)
    of_dictionary = (table["backbone"] == backbone) & (table["block"] == block) & (table["dictionary"] == dictionary)
    rows = table[of_dictionary & (table["seed"] == str(seed)) & (table["dataset"] == dataset)]
    rows = rows[~rows["dead"].astype(bool) & ~rows["dense"].astype(bool) & (rows["frequency_image"] <= most_frequent)]
    rows = rows[rows["n_reference"] == rows["n_reference"].max()]
    rows = rows.assign(rounded=rows["label_entropy"].round(2))
    rows = rows.sort_values(["rounded", "mean_activation"], ascending=[True, False], kind="stable").head(count)
    title = [
        "no labels" if pd.isna(entropy) else f"label entropy {entropy:.2f} nats" for entropy in rows["label_entropy"]
    ]
    return pd.DataFrame({"latent": rows["latent"].astype(int), "title": title, "score": rows["label_entropy"]})
