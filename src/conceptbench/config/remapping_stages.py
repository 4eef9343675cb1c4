"""The parts of the configuration on which the measures of remapping depend (see `stages`)."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from conceptbench.config.model import Config
from conceptbench.config.sections import Section

Spec = dict[str, Any]


def _shared(config: Config) -> Spec:
    chosen, measures = config.adaptations, config.measures
    return {
        "backbone": chosen.backbone,
        "tasks": list(chosen.tasks),
        "setting": chosen.setting,
        "seed": config.seed,
        "seeds": list(config.seeds),
        "block": measures.block,
        "dictionary": measures.dictionary,
        "dictionary_method": config.dictionaries.methods[measures.dictionary].method,
        "firing_threshold": measures.firing_threshold,
        "resamples": measures.resamples,
    }


def _plain(section: Section | None) -> Spec | None:
    return None if section is None else section.model_dump(mode="json")


def _measure_masking(config: Config) -> Spec:
    return {**_shared(config), "masking": _plain(config.measures.masking)}


def _measure_concepts(config: Config) -> Spec:
    random = [name for name, spec in sorted(config.dictionaries.methods.items()) if spec.method == "random"]
    return {**_shared(config), "concepts": _plain(config.measures.concepts), "random_dictionaries": random[:1]}


def associated(config: Config) -> tuple[str, ...]:
    """Return the adaptations whose association is measured: those that are named, or all but zero-shot.

    One that changes the text side alone remaps too: the same latents come to speak for other classes.
    """
    concepts, methods = config.measures.concepts, config.adaptations.methods
    if concepts is None:
        return ()
    if concepts.methods is not None:
        return concepts.methods
    return tuple(name for name, spec in methods.items() if spec.method != "zero-shot")


def _maple(config: Config) -> str | None:
    """Return the adaptation that stands for MaPLe."""
    return next((name for name, spec in config.adaptations.methods.items() if spec.method == "maple"), None)


def _measure_association(config: Config) -> Spec:
    """Return what the association is measured on; `shown` is the adaptation that the figure has room for."""
    names, maple = associated(config), _maple(config)
    shown = maple if maple in names else next(iter(names), None)
    return {**_shared(config), "concepts": _plain(config.measures.concepts), "shown": shown}


def _measure_validity(config: Config) -> Spec:
    return {**_shared(config), "concepts": _plain(config.measures.concepts)}


def _learn_adapted(config: Config, *, task: str, method: str) -> Spec:
    """Return what differs by job; the options are those of the dictionary's card, an input of the rule."""
    return {
        "task": task,
        "method": method,
        "backbone": config.adaptations.backbone,
        "block": config.measures.block,
        "seed": config.seed,
        "seeds": list(config.seeds),
        "train_on": config.dictionaries.train_on,
        "images": config.dictionaries.images,
        "dictionary": config.measures.dictionary,
    }


def _measure_plants(config: Config) -> Spec:
    return {**_shared(config), "plants": _plain(config.measures.plants)}


def _measure_claims(config: Config) -> Spec:
    """Return what the claims are judged on; the adaptation is the one that stands for MaPLe."""
    chosen, measures = config.adaptations, config.measures
    options = {
        name: {key: getattr(spec, key) for key in ("method", "width", "l1") if hasattr(spec, key)}
        for name, spec in sorted(config.dictionaries.methods.items())
    }
    return {
        "backbone": chosen.backbone,
        "block": measures.block,
        "dictionary": measures.dictionary,
        "dictionaries": options,
        "adaptation": _maple(config),
        "prompts": [name for name, spec in chosen.methods.items() if spec.method in PROMPT_METHODS],
        "tasks": {task: config.datasets[task].kind for task in chosen.tasks},
        "train_on": config.dictionaries.train_on,
        "seed": config.seed,
        "resamples": measures.resamples,
    }


PROMPT_METHODS: Final = ("coop", "cocoop", "vpt-deep", "ivlp", "maple", "promptsrc")
"""Methods that learn prompts, of which a claim on prompt adaptation speaks."""
REMAPPING_STAGES: Final[Mapping[str, Callable[..., Spec]]] = {
    "measure_masking": _measure_masking,
    "measure_concepts": _measure_concepts,
    "measure_association": _measure_association,
    "measure_validity": _measure_validity,
    "learn_adapted": _learn_adapted,
    "measure_plants": _measure_plants,
    "measure_claims": _measure_claims,
}
"""Stages of rules/remapping.smk and rules/claims.smk."""
