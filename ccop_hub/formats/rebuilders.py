"""Rebuild arrays and tensors from the pickles of NumPy and torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import one_line
from .inert_pickle import DamagedPickleError, NotDense, Note, Rebuilder, Stateful

_SLACK = 1 << 20
"""Bytes by which the arrays of a file may exceed its size, to allow for NumPy scalars and the like."""

STORAGE_TYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}
"""Storage class name, as written by `torch.save` -> element type."""


class NumpyType(Stateful):
    """`numpy.dtype`.

    Attributes:
        type: NumPy type, or None if not numeric.
    """

    def __init__(self, code: Any, *_: Any) -> None:
        text = code if isinstance(code, str) else ""
        self.type = np.dtype(text) if text[:1] in ("f", "i", "u", "b", "c") and text[1:].isdigit() else None
        if self.type is not None and self.type.itemsize > 16:
            self.type = None

    def set_state(self, state: Any) -> None:
        """Set the byte order."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">" and self.type is not None:
            self.type = self.type.newbyteorder(">")


class NumpyArray(Stateful):
    """`numpy.ndarray`, converted to a tensor once its data is read.

    Attributes:
        value: the tensor, or a note if the data is not numeric or not read yet.
    """

    def __init__(self, build: Callable[..., Tensor | NotDense]) -> None:
        self._build = build
        self.value: Tensor | NotDense = NotDense("numpy.ndarray without data")

    def set_state(self, state: Any) -> None:
        """Set version, shape, type, order and data."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise DamagedPickleError("invalid array state")
        _, shape, kind, fortran, raw = state
        self.value = self._build(raw, kind, shape, "F" if fortran else "C")


class Arrays:
    """Rebuilds arrays, and checks that their total size does not exceed the file.

    Args:
        size: file size in bytes.
    """

    def __init__(self, size: int) -> None:
        self._left = size + _SLACK

    def names(self) -> dict[str, Any]:
        """Return the rebuilders for NumPy's names in a pickle."""
        found: dict[str, Any] = {"numpy.dtype": Rebuilder("numpy.dtype", NumpyType)}
        for core in ("numpy.core", "numpy._core"):
            for name, build in (
                ("multiarray._reconstruct", self._reconstruct),
                ("multiarray.scalar", self._scalar),
                ("numeric._frombuffer", self.array),
            ):
                found[f"{core}.{name}"] = Rebuilder(f"{core}.{name}", build)
        return found

    def spend(self, count: int) -> None:
        """Count allocated bytes.

        Raises:
            DamagedPickleError: the total exceeds the file size.
        """
        self._left -= count
        if self._left < 0:
            raise DamagedPickleError("arrays are larger than the file")

    def array(self, raw: Any, kind: Any, shape: Any, order: Any = "C") -> Tensor | NotDense:
        """Build a tensor from NumPy data, type and shape, or a note if it is not numeric."""
        if not isinstance(kind, NumpyType) or kind.type is None or not isinstance(shape, tuple):
            return NotDense("numpy.ndarray of something other than numbers")
        if isinstance(raw, str):
            raw = raw.encode("latin1")
        if not isinstance(raw, bytes | memoryview):
            raise DamagedPickleError("array without data")
        if any(not isinstance(side, int) or side < 0 for side in shape):
            raise DamagedPickleError("array of negative size")
        if math.prod(shape) * kind.type.itemsize != len(raw):
            told = f"an array of shape {one_line(shape, 60)} with {len(raw)} bytes of data"
            raise DamagedPickleError(told)
        self.spend(len(raw))
        shaped = np.frombuffer(raw, dtype=kind.type).reshape(shape, order="F" if order == "F" else "C")
        try:
            return torch.from_numpy(shaped.astype(kind.type.newbyteorder("="), order="C"))
        except TypeError:
            return NotDense(f"numpy.ndarray of {kind.type}")

    def _reconstruct(self, *_: Any) -> NumpyArray:
        return NumpyArray(self.array)

    def _scalar(self, kind: Any, raw: Any = b"") -> Any:
        found = self.array(raw, kind, ())
        return found.item() if isinstance(found, Tensor) else found


class Storage:
    """A storage in a PyTorch file.

    Attributes:
        flat: elements, (N,).
    """

    def __init__(self, flat: Tensor) -> None:
        self.flat = flat


def tensor_names(arrays: Arrays) -> dict[str, Any]:
    """Return the rebuilders for torch's names in a pickle."""
    found: dict[str, Any] = {
        "torch._utils._rebuild_tensor": _tensor,
        "torch._utils._rebuild_tensor_v2": _tensor,
        "torch._utils._rebuild_tensor_v3": _tensor_of_type,
        "torch._utils._rebuild_parameter": _first,
        "torch._utils._rebuild_parameter_with_state": _first,
        "torch._utils._rebuild_device_tensor_from_numpy": _first,
        "torch._utils._rebuild_xla_tensor": _first,
        "torch.nn.parameter.Parameter": _first,
        "torch._tensor._rebuild_from_type_v2": _from_type,
        "torch._tensor._rebuild_from_type": _from_type,
    }
    for name in ("sparse_tensor", "sparse_csr_tensor", "qtensor", "meta_tensor_no_storage", "nested_tensor"):
        full = f"torch._utils._rebuild_{name}"
        found[full] = lambda *_, full=full: NotDense(full)
    return {name: Rebuilder(name, build) for name, build in found.items()} | arrays.names()


def container_names() -> dict[str, Any]:
    """Return the rebuilders for Python's containers, which become plain dictionaries and bytes."""
    found: dict[str, Any] = {
        "collections.OrderedDict": _dictionary,
        "collections.defaultdict": lambda *_: {},
        "collections.Counter": _dictionary,
        "_codecs.encode": _encode,
    }
    for module in ("builtins", "__builtin__"):
        found[f"{module}.dict"] = _dictionary
        found[f"{module}.bytes"] = lambda *_: b""
    return {name: Rebuilder(name, build) for name, build in found.items()}


def element_type(storage_type: Any) -> torch.dtype | None:
    """Return the element type of a storage, or None if it is not a plain number."""
    name = storage_type.name.rpartition(".")[2] if isinstance(storage_type, Note) else ""
    return STORAGE_TYPES.get(name)


def _dictionary(given: Any = ()) -> dict[Any, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    pairs: Iterable[Any] = given if isinstance(given, list | tuple) else ()
    return {pair[0]: pair[1] for pair in pairs if isinstance(pair[0], str)}


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise DamagedPickleError("invalid text encoding")
    return text.encode("latin1")


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor | NotDense:
    if isinstance(storage, NotDense):
        return storage
    if not isinstance(storage, Storage) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise DamagedPickleError("tensor without storage")
    if any(not isinstance(number, int) or number < 0 for number in (offset, *size, *stride)) or len(size) != len(
        stride
    ):
        raise DamagedPickleError("tensor of negative size")
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.flat.numel():
        raise DamagedPickleError(f"tensor of shape {one_line(size, 60)} extends beyond its storage")
    if not math.prod(size):
        return torch.empty(size, dtype=storage.flat.dtype)
    return storage.flat.as_strided(size, stride, offset)


def _tensor_of_type(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, kind: Any, *_: Any
) -> Tensor | NotDense:
    name = kind.name.removeprefix("torch.") if isinstance(kind, Note) else ""
    dtype = getattr(torch, name, None) if name.isidentifier() else None
    if not isinstance(storage, Storage) or not isinstance(dtype, torch.dtype):
        return NotDense(f"tensor of {name}")
    if storage.flat.numel() * storage.flat.element_size() % dtype.itemsize:
        raise DamagedPickleError("storage size is not a multiple of its item size")
    return _tensor(Storage(storage.flat.view(dtype)), offset, size, stride)


def _first(value: Any = None, *_: Any) -> Any:
    return value


def _from_type(function: Any, kind: Any = None, arguments: Any = (), *_: Any) -> Any:
    if isinstance(function, Rebuilder) and isinstance(arguments, tuple):
        return function.build(*arguments)
    return NotDense("torch.Tensor subclass")
