"""Pages of finished experiments, made of their metrics and tables alone; `publish.py` writes them."""

from collections.abc import Callable
from pathlib import Path

import dictionary_tables
import pandas as pd
import plant_tables
import remapping_tables
from markup import Grid, Metrics, grid, markdown, matching, metric_rows, named, pick, rows_of

from conceptbench.config import load_config
from conceptbench.figures.style import PUT_BACK
from conceptbench.tables import read_json, read_table

ROOT = Path(__file__).resolve().parents[1]


def opening(results: Path, title: str, command: str) -> list[str]:
    """Title, where the numbers come from, and the machine."""
    machine = read_json(next((results / "dictionaries").glob("*/manifest.json")))["machine"]
    runtime = read_table(results / "tables" / "runtime_summary.parquet").iloc[0]
    return [
        f"# {title}",
        f"Written by `make docs` from the results of `{command}`; not edited by hand. Intervals are 95 %. "
        f"Machine: {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}.",
        f"{runtime['jobs']:.0f} jobs in {runtime['wall_seconds']:.0f} s of wall time; in "
        f"{runtime['outside_seconds']:.0f} s of it ({100 * runtime['outside_share']:.0f} %) no job was at work "
        "(start-up, imports, scheduling).",
    ]


def results_page(results: Path, images: str) -> list[str]:
    """The headline numbers of the default run and where its time went."""
    return [
        *opening(results, "Results of the default run", "make run"),
        f"![Accuracy before and after adaptation]({images}/accuracy.png)",
        f"![Exemplars]({images}/exemplars.png)",
        f"![Overlap of the top latents before and after]({images}/overlap.png)",
        "## Headline numbers",
        markdown(metric_rows(read_json(results / "metrics.json"))),
        "## Where the time goes",
        markdown(read_table(results / "tables" / "runtime.parquet").round(1)),
        f"![Runtime]({images}/runtime.png)",
    ]


def dictionaries_page(results: Path, images: str) -> list[str]:
    """Every method of dictionary learning, at several sparsities and seeds."""
    metrics = read_json(results / "metrics.json")
    methods = named(metrics, r"leaderboard\.([^.]+)\.")
    ranked = {
        "FVU": "dictionaries.{0}.fvu",
        "L0": "dictionaries.{0}.l0",
        "dead share": "dictionaries.{0}.dead_share",
        "factor values recovered, above the best null": "leaderboard.{0}.recovered_above_null",
        "recovered at AUROC 0.90": "truth.{0}.recovered_at_0.90",
        "stability above chance": "stability.{0}.above_floor",
        "the same, from disjoint halves of the images": "stability.{0}.halves.above_floor",
    }
    pareto = read_table(results / "tables" / "pareto.parquet")
    return [
        *opening(results, "The dictionary study", "snakemake --cores 2 --configfile examples/dictionaries.yaml"),
        "Of signal, FVU and L0 intervals count seeds, on the same held-out images; of factor values images and seeds; "
        "of known atoms draws of the world. Methods without chance (`pca`, `raw`) have one fit, and percentile "
        "intervals over images where there is one.",
        "Options stand in the names: `k8` is the number of latents that fire (for jump-relu, batch-topk and matryoshka "
        "the number aimed at), `l1-0p01` an L1 weight of 0.01, `lr0p003` a learning rate of 0.003. `random`, `frozen` "
        "(a trained encoder on random atoms), `raw` (coordinates) and `pca` are nulls. [method.md](method.md) defines "
        "every column.",
        "What each method is given:",
        trained_on(results),
        "## Error against sparsity",
        f"![FVU against L0, and the signal recovered]({images}/pareto.png)",
        *rivalry(pareto, metrics),
        "## The signal recovered, by L0",
        "The same dictionary gives two different fractions, so both are here (means over seeds; the figure above has "
        "the intervals). Rows are sorted by L0 rounded to a whole number.",
        markdown(dictionary_tables.at_equal_l0(pareto)),
        "## All methods",
        "FVU, L0 and dead share are means over seeds; the leaderboard has their intervals. The best null is taken over "
        "all L0, and the share of factor values is of all that the scenes have. Stability above chance is "
        "(cosine - chance) / (1 - chance). The last column is one division of the images, so without an interval, and "
        "only for the dictionaries named in `dictionaries.halves`.",
        grid(metrics, Grid([(name,) for name in methods], ("dictionary",), ranked)),
        f"![Leaderboard]({images}/leaderboard.png)",
        f"![Stability]({images}/stability.png)",
        f"![Firing rates and atoms]({images}/densities.png)",
        *known_atoms(metrics, images),
    ]


def rivalry(pareto: pd.DataFrame, metrics: Metrics) -> list[str]:
    """K-SVD beside autoencoders, and what is claimed of the two."""
    return [
        "## K-SVD against sparse autoencoders",
        'Of K-SVD on CLIP embeddings (DBK-SVD, the project "Finding Monosemantic Subspaces and Human-Compatible '
        'Interpretations in Vision Transformers through Sparse Coding", Stanford 2025) it was claimed that it recovers '
        "two thirds of the signal where a sparse autoencoder recovers a sixth; that was about class tokens of "
        "photographs with captions, this is about all tokens of a small model on rendered scenes. The words fit two "
        "numbers, the energy (1 - FVU) and the norm (1 - mean length of the error over that of the token).",
        "Here is, at each sparsity (L0 within 5 %), one dictionary of each kind on the same held-out tokens, and for "
        "each the share of factor values that its latents recover (all seeds): what is reconstructed best need not be "
        "what stands for concepts. Of several dictionaries (their number is in the column `of`) the one that recovers "
        "most energy with the first seed is taken and the numbers are those of its other seeds, because the best of "
        "several flatters itself on the seed that chose it; the held-out images are the same, so what is lucky on "
        "these is not removed.",
        "What differs besides the atoms: codes of both signs double what an atom can say, so the non-negative K-SVD is "
        "the one to compare. K-SVD codes by matching pursuit, an autoencoder by one linear step; k-means shows what "
        "pursuit does with atoms that are only cluster centres. Shares of dead latents differ (section All methods), "
        "and so does the training (table above): K-SVD's chunks were not searched.",
        dictionary_tables.rivals(pareto, metrics),
        dictionary_tables.verdict(pareto, metrics),
    ]


def known_atoms(metrics: Metrics, images: str) -> list[str]:
    """Recovery of the atoms of the first synthetic world."""
    known = named(metrics, r"recovery\.([^.]+)\.")
    atoms = {
        "cosine with the partner": "recovery.{0}.mcc_recall",
        "its null": "recovery.{0}.mcc_recall_null",
        "share of atoms with a cosine of at least 0.90": "recovery.{0}.recall_at_0.90",
        "F1 of firing": "recovery.{0}.f1",
        "L0": "recovery.{0}.l0",
        "FVU": "recovery.{0}.fvu",
    }
    return [
        "## Known atoms",
        "Synthetic worlds whose atoms are known; here the first of them. Cosines are means over true atoms, and their "
        "null is that of as many random directions. `true-omp` and `true-topk` are the true atoms, coded by pursuit "
        "and by a tied linear step. Passes and tokens a step are as above: K-SVD changes each atom once a step, a few "
        "times in all, and smaller chunks were not tried, so its rows are no verdict on K-SVD.",
        grid(metrics, Grid([(name,) for name in known], ("dictionary",), atoms)),
        f"![Recovery of known atoms]({images}/recovery.png)",
    ]


def trained_on(results: Path) -> str:
    """How much of the tokens each kind of method sees, from the configuration and the cards of the dictionaries."""
    config = load_config(ROOT / "config.yaml", ROOT / "examples" / "dictionaries.yaml")
    table = read_table(results / "tables" / "dictionaries.parquet")
    return dictionary_tables.training(config.dictionaries.methods, table)


def remapping_page(results: Path, images: str) -> list[str]:
    """Every adaptation on the testbed."""
    return [
        *opening(results, "The remapping study", "snakemake --cores 2 --configfile examples/remapping.yaml"),
        "The statements of PatchSAE are judged from these numbers in [claims.md](claims.md); [method.md](method.md) "
        "defines every column.",
        *departures("remapping.yaml"),
        *adaptations(results, images),
    ]


def photographs_page(results: Path, images: str) -> list[str]:
    """Every adaptation on photographs, with the small backbone that ships with the project."""
    command = "snakemake --cores all --configfile examples/local.yaml --config data_root=..."
    return [
        *opening(results, "The remapping study on EuroSAT and Flowers-102", command),
        "The backbone has seen rendered pictures only: these numbers check the whole path on photographs and say "
        "nothing about CLIP. [method.md](method.md) defines every column; PatchSAE's statements are judged in "
        "[claims-photographs.md](claims-photographs.md).",
        *departures("local.yaml"),
        *adaptations(results, images, exemplars=False),
    ]


def departures(overlay: str) -> list[str]:
    """In what the recipes of an experiment differ from the published ones."""
    config = load_config(ROOT / "config.yaml", ROOT / "examples" / overlay)
    return [
        "All options of the adaptations that are not as published for CLIP ViT-B/16 (depths end at the blocks of the "
        "small backbone):",
        remapping_tables.recipes(config),
    ]


def adaptations(results: Path, images: str, exemplars: bool = True) -> list[str]:
    """Accuracy, where the gain comes from, associations and masking; and the estimators on planted truth."""
    metrics = read_json(results / "metrics.json")
    rows = sorted({(match[2], match[1]) for match in matching(metrics, r"adaptation\.([^.]+)\.([^.]+)\.\w+")})
    halves = {half.replace("_", " "): "adaptation.{1}.{0}." + half for half in ("base", "novel", "harmonic_mean")}
    gained = [row for row in rows if f"remapping.{row[1]}.{row[0]}.gain" in metrics]
    seen = {"gain": "gain", "through perception": "perception_share", "through mapping": "mapping_share"}
    shares = {title: "remapping.{1}.{0}." + key for title, key in {**seen, "association": "association"}.items()}
    tables = results / "tables"
    decomposition = read_table(tables / "decomposition.parquet")
    return [
        "## Accuracy",
        grid(metrics, Grid(rows, ("task", "adaptation"), halves, no_accuracy(read_table(tables / "accuracy.parquet")))),
        f"![Accuracy before and after adaptation]({images}/accuracy.png)",
        "## Where the gain on trained classes comes from",
        "Shares of the gain, and how far the associations of latents and classes were rearranged. Where the interval "
        "of the gain contains 0, a share means nothing and the cell says so.",
        grid(metrics, Grid(gained, ("task", "adaptation"), shares, no_share(decomposition))),
        f"![Perception and mapping]({images}/decomposition.png)",
        "Mapping taken apart (Shapley values of three parts):",
        remapping_tables.three_way(decomposition),
        *concepts(tables, images),
        *associations(tables, images, exemplars),
        "## Masking",
        f"![Masking curves]({images}/masking.png)",
        "What knowing the class adds: accuracy of the zero-shot model under a mask by the image's own class, less that "
        "under another mask of as many latents, on the same images. `on` keeps only the k latents, `off` removes them.",
        remapping_tables.oracle(read_table(tables / "masking_contrasts.parquet")),
        *masking(tables),
        *plant_tables.planted(read_table(tables / "plants.parquet")),
        f"![Plants]({images}/plants.png)",
    ]


def no_accuracy(accuracy: pd.DataFrame) -> Callable[[tuple[str, ...], str], str]:
    """Why a task and adaptation have no accuracy on a half."""

    def why(row: tuple[str, ...], key: str) -> str:
        """The table's own note."""
        found = pick(accuracy.astype({"seed": str}), task=row[0], method=row[1], half=key.rsplit(".", 1)[1], seed="all")
        return "none" if found is None or not found["note"] else f"none: {found['note']}"

    return why


def no_share(decomposition: pd.DataFrame) -> Callable[[tuple[str, ...], str], str]:
    """Why a task and adaptation have no share of the gain or no association."""
    where = {"outcome": "accuracy", "players": 2, "variant": "averaged", "seed": "all"}
    pooled = rows_of(decomposition.astype({"seed": str}), **where)

    def why(row: tuple[str, ...], key: str) -> str:
        """The table's own note."""
        part = key.rsplit(".", 1)[1]
        mine = rows_of(pooled, task=row[0], method=row[1], part=part)
        found = pick(mine[mine["half"] != "novel"])
        return "not measured" if found is None or not found["note"] else f"none: {found['note']}"

    return why


def concepts(tables: Path, images: str) -> list[str]:
    """Existing and recruited shares beside their controls, the sentence that weighs them, and the dictionary's fit."""
    table = read_table(tables / "concepts.parquet")
    fit = tables / "validity.parquet"
    return [
        "## Existing and recruited concepts",
        "A class has the latents that fire on at least a share q of its images under zero-shot; all other latents are "
        "the others. The shares of the gain below go with the others; what is left is the existing share. Adaptations "
        "that are not listed leave the image tower alone, so that nothing is recruited by construction. "
        + remapping_tables.scored_on(table, read_table(tables / "accuracy.parquet")),
        f"**{PUT_BACK.capitalize()}** (the claim of recruitment rests on it), with the followed dictionary and its "
        "controls:",
        remapping_tables.controlled(table, "beyond_share"),
        remapping_tables.conclusion(table),
        "**Recruited, others removed** (also takes away what they did before):",
        remapping_tables.controlled(table, "recruited_share"),
        f"![Shares]({images}/shares.png)",
        "The converse: share of the gain that zero-shot activations get under the adapted readout when only the "
        "others, or as many matched latents of the class, are moved to their adapted values.",
        remapping_tables.converse(table),
        f"Other values of q ({PUT_BACK}):",
        remapping_tables.sweep(table),
        "### Is the dictionary still one of the adapted model?",
        "The followed dictionary on zero-shot and on adapted activations, and the same method learnt on the adapted "
        "model. It is valid where its FVU exceeds that of the relearnt one, or where none was learnt its own on "
        "zero-shot activations, by no more than the margin ([method.md](method.md), section 15); a share above means "
        "little where it is not.",
        remapping_tables.validity(read_table(fit)) if fit.is_file() else "Not measured in this experiment.",
    ]


def associations(tables: Path, images: str, exemplars: bool) -> list[str]:
    """Associations, how well first-order values stand for exact ones, and the top latents of the classes.

    Without `exemplars` the figure that shows images of the data set is only named.
    """
    figure = f"![Associations before and after]({images}/association.png)"
    named = (
        "Which latents speak for a class, with the images on which they are strongest: figure `association` of the "
        "run. It shows photographs of the data sets and is therefore not published here."
    )
    return [
        "## Associations and top latents before and after",
        figure if exemplars else named,
        "Correlation of first-order effects with exact removal, for the latents that weigh most (mean over seeds):",
        remapping_tables.agreement(read_table(tables / "association_agreement.parquet")),
        f"![Overlap of the top latents]({images}/overlap.png)",
        f"![Class-level activations before and after]({images}/remapping_scatter.png)",
    ]


def masking(tables: Path) -> list[str]:
    """How alike the matched control is to what it controls, and what other outcomes say."""
    return [
        "How alike the top k latents of the image's own class and their matched control are on zero-shot activations. "
        "The heaviest latents have no equals, so the control has less mass at small k. *Latents shared*: of the "
        "ranking's active latents those that the control holds as well; *can be disjoint*: share of images on which "
        "other latents are left for all of them (where it is below one half, the figure draws no control).",
        remapping_tables.balance(read_table(tables / "masking_balance.parquet")),
        "The same masks by other outcomes, and with dense latents ranked last:",
        remapping_tables.readings(read_table(tables / "masking.parquet")),
    ]
