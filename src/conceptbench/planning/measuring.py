"""Jobs from codes and adapters to tables, figures and the manifest of the run."""

from collections.abc import Iterator
from math import ceil
from typing import Final

from conceptbench.config.remapping import split_images
from conceptbench.config.remapping_stages import associated
from conceptbench.config.synthetic import swept_methods
from conceptbench.planning.jobs import VALUE_BYTES, Folder, Job, Learnt, Study, Unit
from conceptbench.planning.pipeline import (
    FLOAT,
    backbone_job,
    dictionary_bytes,
    learning_amounts,
    learning_arrays,
    training_images,
)

GIGA: Final = 1e9
EMBEDDING: Final = 128
"""Features of an embedding of the small backbones, which named kinds are about."""
LARGEST_ASSIGNMENT: Final = 8192
"""Latents up to which `measure_stability` assigns one to one; above it takes mutual nearest neighbours."""
SHUFFLED_PAIRS: Final = 3
"""Comparisons of shuffled runs that it makes of each dictionary, at least."""
NEAREST_ROWS: Final = 2048
"""Rows of the table of cosines that it holds at once there."""
TABLE_BYTES: Final = 20
"""Bytes of a cell of the whole table: cosines, and two copies in double precision for the solver."""
CODE_COPIES: Final = 3
"""Times its own size that a code takes while it is read: itself, the images chosen, values in double precision."""
PASSES: Final = 3
"""Passes of the blocks above the hook point that a gradient costs: one forward, and a backward twice as long."""
EDITED_MODELS: Final = 2
"""An edit is made on the model as it was and as it is."""


def measuring_jobs(study: Study) -> Iterator[Job]:
    """Yield the jobs that make tables, figures and the manifest of the run."""
    jobs = [*_kinds(study), *_synthetic(study), *_truth(study), *_dictionaries(study), *_adaptations(study)]
    jobs += _remapping(study)
    yield from jobs
    tables = tuple(job.rule for job in jobs if job.rule.startswith("measure_"))
    if study.tasks:
        yield Job("measure_claims", needs=tables)
        tables = ("measure_claims", *tables)
    figures = tuple(job.rule for job in jobs if job.rule.startswith("draw_"))
    yield Job("collect_metrics", needs=tables)
    yield Job("measure_runtime", needs=("collect_metrics", *figures))
    yield Job("draw_runtime", needs=("measure_runtime",), leaves=_FIGURE)
    yield Job("collect_manifests", needs=("draw_runtime",))


_FIGURE: Final[dict[Folder, float]] = {"figures": 1.0}
"""A figure is counted; the rates know its bytes."""


def _drawn(name: str, *after: str) -> Job:
    return Job(f"draw_{name}", needs=after, leaves=_FIGURE)


def _rows(count: float) -> dict[Folder, float]:
    """Rows of tables are counted; the rates know their bytes."""
    return {"tables": count}


def _kinds(study: Study) -> Iterator[Job]:
    chosen = study.config.kinds
    if chosen is None:
        return
    images = study.images[chosen.dataset]
    learnt = [Learnt.of(name, spec, EMBEDDING, study.seeds) for name, spec in chosen.methods.items()]
    train, every = images.splits["train"], images.all - images.splits.get("pairs", 0)
    for name in chosen.backbones:
        amounts: dict[Unit, float] = {"forward_gflop": every * study.towers[name].image_gflop()}
        needs = (f"prepare_dataset/{chosen.dataset}", backbone_job(study, name))
        leaves: dict[Folder, float] = {"outputs": float(every * EMBEDDING * FLOAT)}
        yield Job("record_outputs", name, needs, amounts, gpu=True, leaves=leaves, images=every)
        stored = sum(one.seeds * every * study.token_bytes(one) for one in learnt)
        leaves = {"outputs": stored + dictionary_bytes(learnt, EMBEDDING)}
        amounts = learning_amounts(learnt, EMBEDDING, train)
        after, seen = (f"record_outputs/{name}",), amounts["token"]
        yield Job("learn_output_dictionaries", name, after, amounts, gpu=True, leaves=leaves, tokens=seen)
    work = len(chosen.backbones) * sum(one.seeds * one.latents for one in learnt) * every
    yield Job("measure_kinds", needs=("learn_output_dictionaries",), amounts={"latent_image": work})
    yield _drawn("named_kinds", "measure_kinds")


def _synthetic(study: Study) -> Iterator[Job]:
    chosen = study.config.synthetic
    if not chosen.worlds:
        return
    swept = swept_methods(chosen, study.config.dictionaries.methods)
    features = 0.0
    for name, world in chosen.worlds.items():
        learnt = [Learnt.of(label, method, world.d, study.seeds) for label, (method, _) in swept.items()]
        amounts = learning_amounts(learnt, world.d, chosen.tokens * len(chosen.seeds))
        features += len(chosen.seeds) * sum(one.seeds * one.latents * chosen.held_out for one in learnt)
        leaves: dict[Folder, float] = {"synthetic": len(chosen.seeds) * dictionary_bytes(learnt, world.d)}
        yield Job("learn_synthetic", name, (), amounts, gpu=True, leaves=leaves, tokens=amounts["token"])
    yield Job("measure_recovery", needs=("learn_synthetic",), amounts={"latent_image": features})
    yield _drawn("recovery", "measure_recovery")


def _latents(study: Study, backbones: tuple[str, ...]) -> float:
    """Latents of all dictionaries at all hook points of some backbones, every seed counted."""
    return sum(
        study.blocks(name) * sum(one.seeds * one.latents for one in study.dictionaries(name)) for name in backbones
    )


def _code_arrays(study: Study, backbones: tuple[str, ...], on: tuple[str, ...]) -> float:
    """Bytes of reading the largest code of some backbones on some data sets."""
    return CODE_COPIES * max(
        max(study.token_bytes(one) for one in study.dictionaries(name))
        * study.towers[name].image.tokens
        * max(study.images[dataset].measured for dataset in on)
        for name in backbones
    )


def _truth(study: Study) -> Iterator[Job]:
    on = study.config.measures.truth_on
    if on is None:
        return
    hooks, images = tuple(study.config.hooks), study.images[on]
    reading = sum(study.towers[name].image_gflop() for name in hooks if study.towers[name].text)
    needs = (f"prepare_dataset/{on}", *(backbone_job(study, name) for name in hooks))
    amounts: dict[Unit, float] = {"job": 1, "forward_gflop": images.splits["test"] * reading}
    yield Job("measure_backbones", needs=needs, amounts=amounts, gpu=True)
    needs = tuple(f"encode_codes/{name}.{on}" for name in hooks)
    work = _latents(study, hooks) * images.measured
    arrays, rows = _code_arrays(study, hooks, (on,)), _rows(_latents(study, hooks))
    yield Job("measure_truth", needs=needs, amounts={"latent_image": work}, arrays=arrays, leaves=rows)
    yield _drawn("zero_shot", "measure_backbones")
    yield _drawn("factor_recovery", "measure_truth")
    yield _drawn("factor_values", "measure_truth")


def _dictionaries(study: Study) -> Iterator[Job]:
    measures, hooks = study.config.measures, tuple(study.config.hooks)
    on = study.config.dictionaries.train_on
    yield Job("measure_dictionaries", needs=("learn_dictionaries",))
    if measures.latents_on:
        learnt, tower = study.dictionaries(study.adapted), study.towers[study.adapted]
        tokens = sum(study.images[name].measured for name in measures.latents_on) * tower.image.tokens
        each = sum(one.seeds * one.firings(study.penalised_l0) for one in learnt)
        needs = tuple(f"encode_codes/{study.adapted}.{name}" for name in measures.latents_on)
        rows = _rows(_latents(study, (study.adapted,)) * len(measures.latents_on))
        firings = study.blocks(study.adapted) * each * tokens
        arrays = _code_arrays(study, (study.adapted,), measures.latents_on)
        yield Job("measure_latents", needs=needs, amounts={"firing": firings}, arrays=arrays, leaves=rows)
        yield _drawn("latent_statistics", "measure_latents")
        yield _drawn("exemplars", "measure_latents")
    yield _drawn("densities", "measure_dictionaries")
    yield Job("measure_pareto", needs=("measure_dictionaries",))
    yield _drawn("pareto", "measure_pareto")
    ranked = ["measure_dictionaries", *(["measure_truth"] if measures.truth_on else [])]
    pairs = study.seeds * (study.seeds - 1) / 2
    if pairs or study.config.dictionaries.halves:
        yield _stability(study, on, pairs)
        yield _drawn("stability", "measure_stability")
        ranked.append("measure_stability")
    judged = tuple(name for name in hooks if study.config.embedding_of(name))
    if judged:
        needs = tuple(f"encode_codes/{name}.{on}" for name in judged)
        work = _latents(study, judged) * study.images[on].measured
        arrays, rows = _code_arrays(study, judged, (on,)), _rows(_latents(study, judged))
        amounts: dict[Unit, float] = {"latent_image": work}
        yield Job("measure_monosemanticity", needs=needs, amounts=amounts, gpu=True, arrays=arrays, leaves=rows)
        yield _drawn("monosemanticity", "measure_monosemanticity")
        ranked.append("measure_monosemanticity")
    yield Job("measure_leaderboard", needs=tuple(ranked))
    yield _drawn("leaderboard", "measure_leaderboard")


def _stability(study: Study, on: str, pairs: float) -> Job:
    """Latents of two dictionaries are assigned to each other, or find their nearest where they are too many.

    An assignment takes the cube of the width and a table of its square. Nearest neighbours take products of all atoms
    with all atoms, once for the decoders and once for the encoders of each comparison. Runs are compared as they are
    and shuffled (the pairs of all draws are at least `SHUFFLED_PAIRS`), and random atoms once.
    """
    hooks, halves = tuple(study.config.hooks), study.config.dictionaries.halves
    amounts: dict[Unit, float] = {"assignment": 0.0, "encoding_gflop": 0.0}
    arrays = 0.0
    for name in hooks:
        width = study.towers[name].image.width
        for one in study.dictionaries(name):
            repeated = ([pairs] if one.seeds > 1 else []) + ([1.0] if one.name in halves else [])
            if not repeated:
                continue
            count = sum(some * (1 + ceil(SHUFFLED_PAIRS / some)) for some in repeated)
            atoms = FLOAT * one.latents * width * 2 * (2 * one.seeds + 3)
            if one.latents <= LARGEST_ASSIGNMENT:
                amounts["assignment"] += study.blocks(name) * count * one.latents**3 / GIGA
                table = TABLE_BYTES * one.latents**2
            else:
                products = study.blocks(name) * (2 * count + len(repeated))
                amounts["encoding_gflop"] += products * 2 * width * one.latents**2 / GIGA
                table = 2 * FLOAT * NEAREST_ROWS * one.latents
            arrays = max(arrays, atoms + table)
    needs = ("learn_dictionaries", *(f"encode_codes/{name}.{on}" for name in hooks))
    return Job("measure_stability", needs=needs, amounts=amounts, arrays=arrays + _code_arrays(study, hooks, (on,)))


def _adaptations(study: Study) -> Iterator[Job]:
    if not study.tasks:
        return
    yield Job("measure_accuracy", needs=("adapt",))
    yield _drawn("accuracy", "measure_accuracy")
    tower, followed = study.towers[study.adapted], study.followed()
    images = sum(study.images[task].splits["test"] for task in study.tasks)
    scored = images * len(study.moving) * study.seeds
    if study.moving:
        firings = 2 * scored * tower.image.tokens * followed.firings(study.penalised_l0)
        needs = ("encode_adapted", *(f"encode_codes/{study.adapted}.{task}" for task in study.tasks))
        rows = _rows(followed.latents * len(study.tasks) * len(study.moving))
        largest = max(study.images[task].splits["test"] for task in study.tasks) * tower.image.tokens
        arrays = 2.0 * study.seeds * study.token_bytes(followed) * largest
        yield Job("measure_overlap", needs=needs, amounts={"firing": firings}, arrays=arrays, leaves=rows)
        yield _drawn("overlap", "measure_overlap")
    if study.before and study.learning:
        plain = images if len(study.learning) > len(study.moving) else 0
        amounts: dict[Unit, float] = {"job": 1, "forward_gflop": (2 * scored + plain) * tower.image_gflop()}
        yield Job("measure_decomposition", needs=("adapt",), amounts=amounts, threads=2, gpu=True)
        yield _drawn("decomposition", "measure_decomposition")


def _remapping(study: Study) -> Iterator[Job]:
    measures = study.config.measures
    if not (study.tasks and study.before):
        return
    needs = ("adapt", f"learn_dictionaries/{study.adapted}")
    tower = study.towers[study.adapted]
    behind = tower.image.gflop() - tower.image.gflop(measures.block + 1)
    if measures.masking:
        chosen = measures.masking
        models = study.moving if chosen.methods is None else chosen.methods
        views = (1 + len(models)) * len(chosen.edits) * len(chosen.dense) * EDITED_MODELS
        edited = study.seeds * len(study.tasks) * split_images(chosen.images)[1] * (len(chosen.k) + 2) * views
        amounts: dict[Unit, float] = {"job": 1, "edit_gflop": edited * behind}
        yield Job("measure_masking", needs=needs, amounts=amounts, gpu=True)
        yield _drawn("masking", "measure_masking")
    changed: tuple[str, ...] = ()
    if measures.concepts:
        changed = study.moving if measures.concepts.methods is None else measures.concepts.methods
    if measures.concepts:
        yield from _concepts(study, changed, needs, behind)
    if measures.plants:
        repetitions = float(measures.plants.seeds * measures.plants.resamples)
        yield Job("measure_plants", needs=needs, amounts={"job": 1, "repetition": repetitions}, gpu=True)
        yield _drawn("plants", "measure_plants")
    if study.moving and changed:
        yield _drawn("remapping_scatter", "measure_overlap")


def _concepts(study: Study, changed: tuple[str, ...], needs: tuple[str, ...], behind: float) -> Iterator[Job]:
    chosen, setting = study.config.measures.concepts, study.config.adaptations.setting
    assert chosen is not None
    tower = study.towers[study.adapted]
    relearnt = [name for name in changed if name in chosen.relearn]
    models = study.seeds * len(study.tasks) * (1 + len(changed))
    on_a, on_b = split_images(chosen.images)
    forward: dict[Unit, float] = {"job": 1, "forward_gflop": models * (on_a + on_b) * tower.image_gflop()}
    read = associated(study.config)
    for task in study.tasks:
        for method in relearnt:
            yield _relearning(study, task, method)
    after = (*needs, *(["learn_adapted"] if relearnt else []))
    if changed:
        yield Job("measure_concepts", needs=after, amounts=forward, gpu=True)
        yield _drawn("shares", "measure_concepts")
    if not read:
        return
    classes = sum(study.images[task].trained_classes(setting) for task in study.tasks)
    gradients = PASSES * (1 + len(read) + 2 * len(relearnt))
    edits = study.seeds * classes * (chosen.exact * (1 + len(changed)) + gradients) * on_b
    scored = models * on_b * tower.image_gflop()
    amounts: dict[Unit, float] = {"job": 1, "forward_gflop": scored, "edit_gflop": edits * behind}
    yield Job("measure_association", needs=after, amounts=amounts, gpu=True)
    yield Job("measure_validity", needs=after, amounts=forward, gpu=True)
    yield _drawn("association", "measure_association", "measure_validity")


def _relearning(study: Study, task: str, method: str) -> Job:
    """The followed dictionary again, on activations of the adapted model that are kept only meanwhile."""
    tower, followed, images = study.towers[study.adapted], study.followed(), training_images(study)
    d, tokens = tower.image.width, images * tower.image.tokens
    amounts = learning_amounts([followed], d, tokens)
    amounts["forward_gflop"] = study.seeds * images * tower.image_gflop(study.config.measures.block)
    train_on = study.config.dictionaries.train_on
    name = f"{task}.{method}"
    needs = (f"adapt/{name}", f"prepare_dataset/{train_on}", f"learn_dictionaries/{study.adapted}")
    leaves: dict[Folder, float] = {"adapted": float(tokens * d * VALUE_BYTES) + dictionary_bytes([followed], d)}
    arrays = learning_arrays([followed], d, tokens, 0)
    seen, passes = amounts["token"], study.seeds * images
    return Job(
        "learn_adapted", name, needs, amounts, gpu=True, arrays=arrays, leaves=leaves, images=passes, tokens=seen
    )
