"""The Triton engine on a CPU: its modules loaded anew for Triton's interpreter, and forgotten afterwards.

Triton decides when a kernel is defined whether it is compiled or interpreted. Other tests of the process may have
loaded Triton before, or use it later, so nothing that is changed here outlives the `with` block.
"""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import pytest

PACKAGE, MODULES = "conceptbench.dictionaries", ("triton_kernels", "topk_triton")


@contextmanager
def interpreted() -> Iterator[ModuleType]:
    """Yield the module `topk_triton`, whose engine takes tensors of the CPU."""
    import triton.language as tl  # before the environment changes: Triton's own functions stay compiled ones

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.setattr(tl, "sum", lambda rows, axis: tl.reduce(rows, axis, tl.standard._sum_combine))
        _forget()
        try:
            yield importlib.import_module(f"{PACKAGE}.topk_triton")
        finally:
            _forget()


def _forget() -> None:
    """Let the next import load the modules again."""
    for name in MODULES:
        sys.modules.pop(f"{PACKAGE}.{name}", None)
        vars(importlib.import_module(PACKAGE)).pop(name, None)
