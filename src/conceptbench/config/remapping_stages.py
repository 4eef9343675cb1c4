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


def _measure_association(config: Config) -> Spec:
    return {**_shared(config), "concepts": _plain(config.measures.concepts)}


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
        "adaptation": next((name for name, spec in chosen.methods.items() if spec.method == "maple"), None),
        "tasks": {task: config.datasets[task].kind for task in chosen.tasks},
        "train_on": config.dictionaries.train_on,
        "seed": config.seed,
        "resamples": measures.resamples,
    }


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
