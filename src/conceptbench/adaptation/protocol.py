"""One entry for all methods: from a specification, a backbone and a data set to an adapter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from conceptbench.adaptation.adapter import Adapter
from conceptbench.adaptation.features import PlainFeatures
from conceptbench.adaptation.fitting import Fitting
from conceptbench.adaptation.methods import fit
from conceptbench.adaptation.specs import MethodSpec, Setting, spec_values
from conceptbench.adaptation.specs import method_spec as read_spec
from conceptbench.adaptation.tasks import Task, few_shot_task

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
    plain: PlainFeatures | None = None,
    progress: bool = True,
) -> Adapter:
    """Adapt `backbone` to the classes of `dataset` from `shots` images a class.

    In the setting "base-to-novel" only the base half of the classes is trained, in "all-classes" every class. `seed`
    chooses the images, as CoOp does, and every other random number. The backbone is left as it was. Features that the
    method needs of images as they are come from `plain`, which one call after the other may share.

    Raises ConceptBenchError when the backbone lacks a part the method needs, a class has fewer images than `shots`,
    or a loss is not finite.
    """
    spec = read_spec(method_spec)
    task = few_shot_task(dataset, shots, seed, setting)
    plain = plain or PlainFeatures(backbone, dataset, progress=progress)
    return fit(spec, Fitting(backbone, task, _card(spec, backbone, task), plain, progress))


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
