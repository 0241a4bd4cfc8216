"""Arrays out of a pickle file, with nothing of the pickle ever run.

A pickle is a program: it names callables and calls them. Detectron2's `.pkl` files name numpy's alone. Here each of
these names stands for a small class of our own that only takes notes, and every other name is refused at the moment it
is looked up, which is before anything can be called. Numpy itself is not needed.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import pickletools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError, one_line

_DTYPES = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "b1": torch.bool,
}


class RefusedPickleError(UserError):
    """A pickle that asks for something beyond arrays and plain containers."""


class _Dtype:
    """`numpy.dtype`: the type's code, such as `f4`."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or code not in _DTYPES:
            raise RefusedPickleError(f"holds an array of type {one_line(code, 20)!r}; only numbers are read")
        self.torch = _DTYPES[code]

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] not in ("<", "|", "="):
            raise RefusedPickleError("holds an array of big-endian numbers; save it again on a little-endian machine")


class _Array:
    """`numpy.ndarray`: becomes a tensor when the pickle delivers its state (version, shape, type, order, bytes)."""

    def __init__(self) -> None:
        self.tensor: Tensor | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, raw = state
        self.tensor = _tensor(raw, dtype, shape, bool(fortran))


def _tensor(raw: object, dtype: object, shape: object, fortran: bool) -> Tensor:
    if isinstance(raw, str):
        raw = raw.encode("latin1")
    if not isinstance(raw, bytes | bytearray) or not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
        raise RefusedPickleError("holds an array whose parts are not of the types that numpy writes")
    count = math.prod(shape)
    if any(not isinstance(side, int) or side < 0 for side in shape) or count * dtype.torch.itemsize != len(raw):
        told = f"shape {one_line(shape)} with {len(raw)} bytes of data"
        raise RefusedPickleError(f"holds an array of {told}, which do not agree")
    if count == 0:
        return torch.empty(shape, dtype=dtype.torch)
    flat = torch.frombuffer(bytearray(raw), dtype=dtype.torch)
    if fortran:
        return flat.reshape(shape[::-1]).permute(*reversed(range(len(shape)))).contiguous()
    return flat.reshape(shape)


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    # Numpy always writes the shape (0,) here; any other would only serve to make it allocate.
    if kind is not _Array or shape != (0,):
        raise RefusedPickleError("builds an array in a way that numpy does not write")
    return _Array()


def _from_buffer(raw: object, dtype: object, shape: object, order: object) -> Tensor:
    return _tensor(raw, dtype, shape, order == "F")


def _scalar(dtype: object, raw: object) -> float | int | bool:
    value: float | int | bool = _tensor(raw, dtype, (), False).item()
    return value


def _encode(text: object, encoding: object = "latin1") -> bytes:
    if not isinstance(text, str) or encoding != "latin1":
        raise RefusedPickleError("encodes text in a way that numpy does not")
    return text.encode("latin1")


def _no_bytes() -> bytes:
    """How protocol 2 spells an empty `bytes`."""
    return b""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    ("builtins", "bytes"): _no_bytes,
    ("collections", "OrderedDict"): collections.OrderedDict,
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[(f"{_core}.multiarray", "_reconstruct")] = _reconstruct
    _ALLOWED[(f"{_core}.multiarray", "scalar")] = _scalar
    _ALLOWED[(f"{_core}.numeric", "_frombuffer")] = _from_buffer


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[(module, name)]
        except KeyError:
            asked = one_line(f"{module}.{name}")
            raise RefusedPickleError(f"asks for {asked}, which weights do not need; do not trust it") from None

    def persistent_load(self, _: object) -> Any:
        raise RefusedPickleError("refers to objects outside itself, as arrays never do")


def read_pickle(path: Path) -> Any:
    """Read a pickle of numpy arrays in plain containers.

    Returns:
        The containers, each array in them a tensor.

    Raises:
        RefusedPickleError: it asks for any other class, which is named; nothing of it has run.
        UserError: damaged or cut short.
    """
    content = path.read_bytes()
    try:
        _check_memo(content)
        return _finished(_Unpickler(io.BytesIO(content), encoding="latin1").load(), depth=0)
    except RefusedPickleError as error:
        raise RefusedPickleError(f"{path} {error}") from None
    except Exception as error:  # the bytes decide what a pickle raises: any of it means that they are not a whole one
        raise UserError(f"{path} is a damaged or truncated pickle ({type(error).__name__}): get it again") from None


def _check_memo(content: bytes) -> None:
    """Refuse what would make the unpickler itself allocate: a slot of its memo far beyond what it has read.

    Listing the operations also finds lengths that go beyond the file's end, before anything is made of that length.
    """
    for count, (operation, argument, _) in enumerate(pickletools.genops(content)):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > count:
            raise RefusedPickleError("keeps objects in places that it has no need of; do not trust it")


def _finished(value: Any, depth: int) -> Any:
    """The same containers with tensors for arrays; weights files are at most a few levels deep."""
    if isinstance(value, _Array):
        if value.tensor is None:
            raise RefusedPickleError("holds an array without data")
        return value.tensor
    if isinstance(value, dict) and depth < 4:
        return {key: _finished(item, depth + 1) for key, item in value.items()}
    return value
