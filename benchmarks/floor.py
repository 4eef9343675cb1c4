"""The least time a TopK step can take on this machine: what has to be computed and moved, at rates measured here.

One encoder product, the sparse work, and one pass of Adam over parameters and moments. Nothing else is unavoidable: the
decoder product and all weight gradients are sparse, pre-activations need not leave the cache, and no gradient of the
input is needed. The parts are added as if none could overlap with another.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Precision = Literal["bf16", "fp32"]
ADAM_BYTES_PER_PARAMETER = 24
"""Read and write parameter and both moments in float32; a fused update needs no gradient in memory."""


@dataclass(frozen=True)
class Shape:
    """One step: `batch` tokens of `d` features, `width` latents, `k` of them kept."""

    d: int
    width: int
    k: int
    batch: int

    @property
    def encoder_operations(self) -> int:
        """Operations of the one dense product."""
        return 2 * self.batch * self.d * self.width

    @property
    def sparse_operations(self) -> int:
        """Operations of reconstruction, gradient of the kept values, and both weight gradients."""
        return 4 * 2 * self.batch * self.k * self.d

    @property
    def parameters(self) -> int:
        """Count of trained numbers."""
        return 2 * self.d * self.width + self.width + self.d

    @property
    def bytes_moved(self) -> int:
        """Optimiser traffic, and tokens and residuals once each."""
        return ADAM_BYTES_PER_PARAMETER * self.parameters + 2 * 4 * self.batch * self.d


@dataclass(frozen=True)
class Floor:
    """The parts of the least time, in seconds."""

    encoder: float
    sparse: float
    traffic: float

    @property
    def seconds(self) -> float:
        """Return their sum."""
        return self.encoder + self.sparse + self.traffic


def floor(shape: Shape, rates: Mapping[str, Any], precision: Precision) -> Floor:
    """Return the floor at measured `rates` (`drivers/measure_rates.py`).

    Args:
        shape: of the step.
        rates: `bf16_seconds` and `fp32_seconds` of the encoder product of this very shape, `fp32_operations_per_s`, and
            `bytes_per_s`.
        precision: `bf16` takes the faster of both products, `fp32` the plain one.
    """
    plain = rates["fp32_seconds"]
    encoder = plain if precision == "fp32" else min(plain, rates["bf16_seconds"])
    return Floor(
        encoder, shape.sparse_operations / rates["fp32_operations_per_s"], shape.bytes_moved / rates["bytes_per_s"]
    )
