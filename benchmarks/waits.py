"""Count, without a GPU, what would make the host wait for one.

`WaitCounter` runs a step on the CPU and follows the tensors that would be on the GPU: those that are marked, and all
that are computed from them. An operator waits if its result's value or shape must be read from such a tensor.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

READS = {"_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive"}
"""Operators that read a value, or the shape of their result, from the device."""

INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
"""Operators that read the number of true elements from the device if an index is a mask."""

COPIES = {"tolist", "numpy", "cpu", "__array__", "__reduce_ex__"}
"""Methods that copy a tensor to the host without an operator on the CPU."""


class WaitCounter:
    """A context that counts what waits for the device.

    Attributes:
        waits: number of waits, by operator.
        dispatched: number of operators on device tensors, about one kernel launch each.
    """

    def __init__(self, on_device: Iterable[Tensor]) -> None:
        self.waits: Counter[str] = Counter()
        self.dispatched = 0
        for tensor in on_device:
            mark(tensor)

    def __enter__(self) -> Self:
        self._contexts = ExitStack()
        self._contexts.enter_context(_Operators(self))
        self._contexts.enter_context(_Methods(self))
        return self

    def __exit__(self, *error: object) -> None:
        self._contexts.close()


def mark(tensor: Tensor) -> None:
    """Treat a tensor as one on the device."""
    tensor._is_on_device = True  # type: ignore[attr-defined]


def is_marked(tensor: Tensor) -> bool:
    """Return whether a tensor is treated as one on the device."""
    return hasattr(tensor, "_is_on_device")


def _tensors(values: Any) -> Iterator[Tensor]:
    return (value for value in tree_leaves(values) if isinstance(value, Tensor))


class _Operators(TorchDispatchMode):
    def __init__(self, counter: WaitCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        given = list(_tensors((args, kwargs)))
        result = func(*args, **(kwargs or {}))
        if any(is_marked(tensor) for tensor in given):
            self.counter.dispatched += 1
            masks = any(tensor.dtype in (torch.bool, torch.uint8) for tensor in _tensors(args[1:2]))
            shapeless = name == "repeat_interleave" and (kwargs or {}).get("output_size") is None
            if name in READS or (name in INDEXING and masks) or shapeless:
                self.counter.waits[name] += 1
            for tensor in _tensors(result):
                mark(tensor)
        return result


class _Methods(TorchFunctionMode):
    def __init__(self, counter: WaitCounter) -> None:
        super().__init__()
        self.counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in COPIES and args and isinstance(args[0], Tensor) and is_marked(args[0]):
            self.counter.waits[name] += 1
        result = func(*args, **(kwargs or {}))
        if name in COPIES and isinstance(result, Tensor) and is_marked(result):
            result = result.detach()
            del result._is_on_device
        return result
