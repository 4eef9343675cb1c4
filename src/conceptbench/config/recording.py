"""How activations are recorded: by how many jobs, and in which number format the backbone computes."""

from typing import Literal

from conceptbench.config.sections import Count, Section


class Record(Section):
    """The recording of activations."""

    jobs: Count = 1
    """Jobs that share the recording of a data set, each writing shards of its own; the result does not depend on it.
    Set it before a recording starts: with another number a finished one is made again."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number format of the products of the forward pass on a GPU (mixed precision); a CPU computes in float32."""
