"""One entry for all methods: from a specification, a backbone and a data set to an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, assert_never

from conceptbench.adaptation.adapter import Adapter
from conceptbench.adaptation.linear_probe import fit_linear_probe
from conceptbench.adaptation.maple import fit_maple
from conceptbench.adaptation.specs import LinearProbeSpec, MapleSpec, MethodSpec, Setting, ZeroShotSpec, spec_values
from conceptbench.adaptation.specs import method_spec as read_spec
from conceptbench.adaptation.tasks import Task, few_shot_task
from conceptbench.adaptation.zero_shot import fit_zero_shot

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone
    from conceptbench.data import Dataset


def adapt(
    method_spec: MethodSpec | Mapping[str, Any],
    backbone: Backbone,
    dataset: Dataset,
    shots: int,
    seed: int,
    setting: Setting = "base-to-novel",
    *,
    progress: bool = True,
) -> Adapter:
    """Adapt `backbone` to the classes of `dataset` from `shots` images a class.

    In the setting "base-to-novel" only the base half of the classes is trained, in "all-classes" every class. `seed`
    chooses the images, as CoOp does, and every other random number. The backbone is left as it was.

    Raises ConceptBenchError when the backbone lacks a part the method needs, a class has fewer images than `shots`,
    or a loss is not finite.
    """
    spec = read_spec(method_spec)
    task = few_shot_task(dataset, shots, seed, setting)
    card = _card(spec, backbone, task)
    match spec:
        case ZeroShotSpec():
            return fit_zero_shot(spec, backbone, card)
        case LinearProbeSpec():
            return fit_linear_probe(spec, backbone, task, card, progress)
        case MapleSpec():
            return fit_maple(spec, backbone, task, card, progress)
        case _:
            assert_never(spec)


def _card(spec: MethodSpec, backbone: Backbone, task: Task) -> dict[str, Any]:
    """What identifies an adapter, whatever its method."""
    return {
        "spec": spec_values(spec),
        "backbone": {"name": backbone.name, "digest": backbone.digest},
        "dataset": {"name": task.dataset.name, "digest": task.dataset.digest},
        "setting": task.setting,
        "shots": task.shots,
        "seed": task.seed,
        "classes": list(task.class_names),
    }
