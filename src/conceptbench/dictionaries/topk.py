"""TopK autoencoder with AuxK: the learner, which takes the step that is made for the device it runs on."""

import os
import sysconfig
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING, Final

import torch
from jaxtyping import Float
from torch import Tensor

from conceptbench.dictionaries.clocked import ClockedLearner
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.distributed import in_group
from conceptbench.dictionaries.divided import DataParallelTopK
from conceptbench.dictionaries.learner import Parameters, Setting, StepReport
from conceptbench.dictionaries.rules import KeepLargest
from conceptbench.dictionaries.schedules import kept, learning_rate
from conceptbench.dictionaries.specs import TopK
from conceptbench.dictionaries.topk_fused import FusedTopK
from conceptbench.dictionaries.topk_torch import TorchTopK

if TYPE_CHECKING:
    from conceptbench.dictionaries.topk_triton import TritonTopK

LEAST_CAPABILITY: Final = 8, 0
"""Of the GPUs that Triton supports, and for which the tests compile the kernels."""


def _engine(
    parameters: Parameters, spec: TopK, setting: Setting
) -> "FusedTopK | TritonTopK | TorchTopK | DataParallelTopK":
    """Return the step for a device: numba's on a CPU, Triton's on a GPU where it runs, torch's anywhere else.

    Several GPUs in a group take torch's step too.
    """
    if in_group():
        return DataParallelTopK(parameters, spec)
    if setting.device.type == "cpu":
        return FusedTopK(parameters, spec, setting.candidates)
    if _runs_triton(setting.device):
        from conceptbench.dictionaries.topk_triton import TritonTopK  # needs Triton, which is not on every platform

        return TritonTopK(parameters, spec)
    return TorchTopK(parameters, spec)


def _runs_triton(device: torch.device) -> bool:
    """Return whether the device is a GPU for which Triton compiles, and Triton is here and can start kernels."""
    if device.type != "cuda" or find_spec("triton") is None or not _builds_launcher():
        return False
    return torch.cuda.get_device_capability(device) >= LEAST_CAPABILITY


def _builds_launcher() -> bool:
    """Return whether there are a C compiler and Python's headers, from which Triton builds what starts its kernels."""
    compiler = os.environ.get("CC") or which("gcc") or which("clang")
    return compiler is not None and Path(str(sysconfig.get_config_var("INCLUDEPY")), "Python.h").is_file()


class TopKLearner(ClockedLearner):
    """Feeds the step with the latents that are dead and the number that it keeps."""

    def __init__(self, spec: TopK, setting: Setting) -> None:
        """Start from the atoms that the specification names."""
        parameters = Parameters.start(spec.width, spec.k, setting, spec.start)
        self._spec, self._engine = spec, _engine(parameters, spec, setting)
        super().__init__(parameters, self._engine, spec, setting)

    def step(self, x: Float[Tensor, "token feature"]) -> StepReport:
        """Learn from one batch."""
        lr = learning_rate(self._spec, self._steps, self._total_steps)
        return self._account(self._engine.step(x, self._clock.dead(), lr, kept(self._spec, self._steps)), len(x))

    def finish(self) -> Dictionary:
        """Return the dictionary; the k largest are kept at encoding too."""
        return self._dictionary(KeepLargest(self._spec.k))
