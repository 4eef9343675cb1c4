"""The part of the configuration that a rule's result depends on, and nothing else.

The workflow writes it as the rule's parameter stamp. Results of earlier rules are not repeated here: they are inputs
of the rule, so a change of theirs is seen without it.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from conceptbench.config.dictionaries import DictionaryMethod
from conceptbench.config.dictionary_methods import Own
from conceptbench.config.grid import configured_names
from conceptbench.config.kinds import Kinds
from conceptbench.config.model import Config
from conceptbench.config.names import nearest
from conceptbench.config.remapping_stages import REMAPPING_STAGES
from conceptbench.config.sections import Section
from conceptbench.config.sources import source_digest
from conceptbench.config.synthetic import swept_methods
from conceptbench.errors import ConceptBenchError

Spec = dict[str, Any]

DETERMINISTIC = ("raw", "pca")
"""Dictionary methods in which nothing is random: one seed stands for all."""

MEASURED_SPLITS = ("val", "test", "pairs")
"""Splits whose tokens are encoded: A, B and the counterfactual pairs; nothing is measured on training images."""


def _plain(section: Section, **options: Any) -> Spec:
    return section.model_dump(mode="json", by_alias=True, **options)


def _prepare_dataset(config: Config, *, dataset: str) -> Spec:
    section = _plain(config.datasets[dataset], exclude={"template"}, exclude_none=True)
    return {"name": dataset, "seed": config.seed, **section}


def _fetch_dataset(config: Config, *, dataset: str) -> Spec:
    return {"name": dataset, "kind": config.datasets[dataset].kind}


def _backbone(config: Config, *, backbone: str) -> Spec:
    return {"name": backbone, **_plain(config.backbones[backbone])}


def _record_activations(config: Config, *, backbone: str, dataset: str) -> Spec:
    spec = {"backbone": backbone, "dataset": dataset, "blocks": list(config.hooks[backbone]), **_precision(config)}
    return {**spec, "splits": list(MEASURED_SPLITS)} if config.dictionaries.live else spec


def _precision(config: Config) -> Spec:
    """Return the number format of recordings where it is not the usual one; the number of jobs affects no result."""
    return {"precision": config.record.precision} if config.record.precision != "float32" else {}


def _dictionary_grid(config: Config, backbone: str) -> Spec:
    return {"backbone": backbone, "blocks": list(config.hooks[backbone]), "seeds_of": _seeds_of(config)}


def _seeds_of(config: Config) -> dict[str, list[int]]:
    """Return the seeds of every dictionary: a method without randomness is learnt once."""
    return {name: _repetitions(config, spec.method) for name, spec in sorted(config.dictionaries.methods.items())}


def _repetitions(config: Config, method: str) -> list[int]:
    return list(config.seeds[:1] if method in DETERMINISTIC else config.seeds)


def _learn_dictionaries(config: Config, *, backbone: str) -> Spec:
    section = _plain(config.dictionaries, exclude={"gpus"} if config.dictionaries.live else {"gpus", "live"})
    computed = _precision(config) if config.dictionaries.live else {}
    sources = _sources(config.dictionaries.methods)
    return {**_dictionary_grid(config, backbone), "seed": config.seed, **section, **computed, **sources}


def _sources(methods: Mapping[str, DictionaryMethod]) -> Spec:
    """Return the digests of the files of methods of the user's own, on which learning depends too."""
    own = {name: source_digest(method.method) for name, method in methods.items() if isinstance(method, Own)}
    return {"sources": own} if own else {}


def _encode_codes(config: Config, *, backbone: str, dataset: str) -> Spec:
    return {**_dictionary_grid(config, backbone), "dataset": dataset, "splits": list(MEASURED_SPLITS)}


def _learn_synthetic(config: Config, *, world: str) -> Spec:
    chosen = config.synthetic
    swept = swept_methods(chosen, config.dictionaries.methods)
    return {
        "world": _plain(chosen.worlds[world]),
        "name": world,
        "seed": config.seed,
        "seeds": list(chosen.seeds),
        "tokens": chosen.tokens,
        "held_out": chosen.held_out,
        "methods": {name: _plain(method) for name, (method, _) in swept.items()},
        **_sources({name: method for name, (method, _) in swept.items()}),
        "configured": {name: origin for name, (_, origin) in swept.items()},
        "seeds_of": {name: _repetitions(config, method.method) for name, (method, _) in swept.items()},
    }


def _record_outputs(config: Config, *, backbone: str) -> Spec:
    return {"backbone": backbone, "dataset": _kinds(config).dataset}


def _learn_output_dictionaries(config: Config, *, backbone: str) -> Spec:
    methods = _kinds(config).methods
    return {
        **{"backbone": backbone, "seed": config.seed, **_sources(methods)},
        "methods": {name: _plain(method) for name, method in methods.items()},
        "seeds_of": {name: _repetitions(config, method.method) for name, method in sorted(methods.items())},
    }


def _kinds(config: Config) -> Kinds:
    if config.kinds is None:
        raise ConceptBenchError("The configuration has no section 'kinds'; add it to measure named kinds.")
    return config.kinds


def _adapt(config: Config, *, task: str, method: str) -> Spec:
    chosen = config.adaptations
    options = _plain(chosen.methods[method])
    if options.get("template", "") is None:
        options["template"] = config.datasets[task].template  # type: ignore[union-attr]  # a task has classes
    return {
        "task": task,
        "name": method,
        "backbone": chosen.backbone,
        "shots": chosen.shots,
        "setting": chosen.setting,
        "seed": config.seed,
        "seeds": list(config.seeds),
        "method": options,
    }


def _adapted(config: Config, task: str, method: str) -> Spec:
    names = {"backbone": config.adaptations.backbone, "task": task, "method": method}
    return {**names, "block": config.measures.block, "seeds": list(config.seeds)}


def _record_adapted(config: Config, *, task: str, method: str) -> Spec:
    return {**_adapted(config, task, method), **_precision(config)}


def _encode_adapted(config: Config, *, task: str, method: str) -> Spec:
    return {**_adapted(config, task, method), "dictionary": config.measures.dictionary}


def _uncertainty(config: Config) -> Spec:
    return {"seed": config.seed, "resamples": config.measures.resamples}


def _measure_backbones(config: Config) -> Spec:
    return {"backbones": sorted(config.hooks), "truth_on": config.measures.truth_on, **_uncertainty(config)}


def _measure_dictionaries(config: Config) -> Spec:
    return {"backbones": sorted(config.hooks)}


def _tables(config: Config) -> Spec:
    """Names over which tables of codes run."""
    return {
        "hooks": {name: list(blocks) for name, blocks in sorted(config.hooks.items())},
        "dictionaries": {name: spec.method for name, spec in sorted(config.dictionaries.methods.items())},
        "seeds": list(config.seeds),
        **_uncertainty(config),
    }


def _followed_dictionary(config: Config) -> Spec:
    return {"block": config.measures.block, "dictionary": config.measures.dictionary}


def _measure_latents(config: Config) -> Spec:
    chosen = config.measures
    data = list(chosen.latents_on)
    options = {"exemplars": chosen.exemplars, "firing_threshold": chosen.firing_threshold, "latents_on": data}
    return {**_dictionary_grid(config, config.adaptations.backbone), **_followed_dictionary(config), **options}


def _measure_truth(config: Config) -> Spec:
    specs = {name: config.backbones[name] for name in sorted(config.hooks)}
    recipes = {name: _plain(spec).get("recipe", spec.kind) for name, spec in specs.items()}
    options = {"truth_on": config.measures.truth_on, "permutations": config.measures.permutations}
    return {**_tables(config), **options, "backbones": recipes}


def _measure_monosemanticity(config: Config) -> Spec:
    judges = {name: config.embedding_of(name) for name in sorted(config.hooks)}
    chosen = {name: judge for name, judge in judges.items() if judge is not None}
    names = {"dictionaries": _ranked(config)["dictionaries"], "on": config.dictionaries.train_on}
    return {**names, "embedding_of": chosen, "seed": config.seed}


def _measure_stability(config: Config) -> Spec:
    """Halves are learnt dictionaries already; what they are compared on is the held-out split."""
    names = {"seeds_of": _seeds_of(config), "halves": list(config.dictionaries.halves)}
    names["dictionaries"] = _ranked(config)["dictionaries"]
    hooks = {name: list(blocks) for name, blocks in sorted(config.hooks.items())}
    return {**names, "hooks": hooks, "on": config.dictionaries.train_on, "seed": config.seed}


def _ranked(config: Config) -> Spec:
    """Methods of all dictionaries, and the one whose L0 the others are compared at."""
    methods = {name: spec.method for name, spec in sorted(config.dictionaries.methods.items())}
    return {"dictionaries": methods, "reference": config.measures.dictionary}


def _measure_pareto(config: Config) -> Spec:
    """Curves join dictionaries of one configured name, which differ in their sparsity alone."""
    return {"dictionaries": _ranked(config)["dictionaries"], "configured": _configured(config)}


def _measure_leaderboard(config: Config) -> Spec:
    return {**_ranked(config), "configured": _configured(config)}


def _configured(config: Config) -> dict[str, str]:
    return dict(sorted(configured_names(config.dictionaries.methods).items()))


def _measure_kinds(config: Config) -> Spec:
    chosen = config.kinds
    names = {"backbones": list(chosen.backbones), "dictionaries": sorted(chosen.methods)} if chosen else {}
    return {**names, "permutations": config.measures.permutations, **_uncertainty(config)}


def _measure_recovery(config: Config) -> Spec:
    return {"worlds": list(config.synthetic.worlds), **_uncertainty(config)}


def _tasks(config: Config) -> Spec:
    chosen = config.adaptations
    methods = {name: spec.method for name, spec in sorted(chosen.methods.items())}
    shared = {"backbone": chosen.backbone, "tasks": list(chosen.tasks), "methods": methods, "setting": chosen.setting}
    return {**shared, "seeds": list(config.seeds), **_uncertainty(config)}


def _measure_accuracy(config: Config) -> Spec:
    return _tasks(config)


def _measure_overlap(config: Config) -> Spec:
    chosen = config.measures
    return {
        **_tasks(config),
        **_followed_dictionary(config),
        "overlap_k": list(chosen.overlap_k),
        "firing_threshold": chosen.firing_threshold,
    }


def _measure_decomposition(config: Config) -> Spec:
    return {**_tasks(config), "block": config.measures.block}


def _draw(config: Config) -> Spec:
    """Return what every figure depends on; the exemplar figure has its own."""
    return _plain(config.figures, exclude={"latents", "images"})


def _draw_exemplars(config: Config) -> Spec:
    return _plain(config.figures)


def _collect_metrics(config: Config) -> Spec:
    return {"backbone": config.adaptations.backbone, "block": config.measures.block}


def _collect_manifests(config: Config) -> Spec:
    return {"experiment": config.experiment}


def _measure_runtime(config: Config) -> Spec:
    return {"experiment": config.experiment}


STAGES: Final[Mapping[str, Callable[..., Spec]]] = {
    "fetch_dataset": _fetch_dataset,
    "prepare_dataset": _prepare_dataset,
    "train_backbone": _backbone,
    "fetch_backbone": _backbone,
    "record_activations": _record_activations,
    "learn_dictionaries": _learn_dictionaries,
    "encode_codes": _encode_codes,
    "learn_synthetic": _learn_synthetic,
    "record_outputs": _record_outputs,
    "learn_output_dictionaries": _learn_output_dictionaries,
    "adapt": _adapt,
    "record_adapted": _record_adapted,
    "encode_adapted": _encode_adapted,
    "measure_backbones": _measure_backbones,
    "measure_dictionaries": _measure_dictionaries,
    "measure_recovery": _measure_recovery,
    "measure_kinds": _measure_kinds,
    "measure_latents": _measure_latents,
    "measure_truth": _measure_truth,
    "measure_monosemanticity": _measure_monosemanticity,
    "measure_stability": _measure_stability,
    "measure_pareto": _measure_pareto,
    "measure_leaderboard": _measure_leaderboard,
    "measure_accuracy": _measure_accuracy,
    "measure_overlap": _measure_overlap,
    "measure_decomposition": _measure_decomposition,
    **REMAPPING_STAGES,
    "draw": _draw,
    "draw_exemplars": _draw_exemplars,
    "collect_metrics": _collect_metrics,
    "measure_runtime": _measure_runtime,
    "collect_manifests": _collect_manifests,
}
"""Every stage with parameters of its own; all other `draw_*` stages share those of `draw`."""


def stage_spec(config: Config, stage: str, **names: str) -> Spec:
    """Return the part of the configuration that affects the result of one rule, as plain JSON values.

    Args:
        config: the experiment.
        stage: name of the rule. names: its wildcards, for example `dataset="flora"`.

    Raises:
        ConceptBenchError: for an unknown stage or thing, with the nearest valid name, or wrong wildcards.
    """
    known = "draw" if stage.startswith("draw_") and stage not in STAGES else stage
    if known not in STAGES:
        raise ConceptBenchError(f"Unknown stage '{stage}'{nearest(stage, STAGES)}")
    valid = {
        "dataset": tuple(config.datasets),
        "task": config.adaptations.tasks,
        "backbone": tuple(
            config.hooks
            if "backbone" in names and known not in ("train_backbone", "fetch_backbone")
            else config.backbones
        ),
        "method": tuple(config.adaptations.methods),
        "world": tuple(config.synthetic.worlds),
    }
    for kind, name in names.items():
        if kind not in valid or name not in valid[kind]:
            hint = nearest(name, valid[kind]) if kind in valid else nearest(kind, valid)
            raise ConceptBenchError(f"Stage '{stage}' has no {kind} '{name}'{hint}")
    try:
        return STAGES[known](config, **names)
    except TypeError as error:
        raise ConceptBenchError(f"Stage '{stage}' got the wrong names {sorted(names)} ({error}).") from error
