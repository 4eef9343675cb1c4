"""A device that is not the CPU, for machines without one: its tensors are kept apart from those of the host.

Inside `foreign()` the device FOREIGN computes on the CPU, but like a GPU it refuses operations on tensors of both
places, and its tensors are not readable by numpy. It stands under the name of torch's meta device, which has no data
of its own. A host tensor of one number, or of indices, is welcome everywhere, as it is on a GPU.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

FOREIGN = torch.device("meta")
_MIXED = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default, torch.ops.aten.index.Tensor)


class ForeignTensor(torch.Tensor):
    """A tensor that lies elsewhere."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> "ForeignTensor":
        wrapper: ForeignTensor = torch.Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=FOREIGN,
        )  # fmt: skip
        wrapper.inner = inner
        return wrapper

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} on a tensor of the foreign device outside of foreign()")


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd"):
            with self:  # in inference mode torch does not take such operations apart by itself
                return func.decompose(*args, **kwargs)
        tensors = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, torch.Tensor)]
        away = [one for one in tensors if isinstance(one, ForeignTensor)]
        at_home = [one for one in tensors if not isinstance(one, ForeignTensor) and one.dim() > 0]
        if away and at_home and func not in _MIXED:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, found cpu and {FOREIGN}")
        to = kwargs.get("device")
        goes_away = bool(away) if to is None else torch.device(to) == FOREIGN
        if to is not None:
            kwargs = {**kwargs, "device": torch.device("cpu")}
        result = func(*tree_map(_unwrap, args), **tree_map(_unwrap, kwargs))
        known = {id(one.inner): one for one in away}  # an operation in place returns the tensor it was given
        return tree_map(lambda one: _wrap(one, known, goes_away), result)


@contextmanager
def foreign() -> Iterator[torch.device]:
    """Make the device usable."""
    with _Mode():
        yield FOREIGN


def _unwrap(one: Any) -> Any:
    return one.inner if isinstance(one, ForeignTensor) else one


def _wrap(one: Any, known: dict[int, ForeignTensor], away: bool) -> Any:
    if not isinstance(one, torch.Tensor):
        return one
    return known.get(id(one), ForeignTensor(one) if away else one)
