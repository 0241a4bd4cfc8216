"""Outline of a set of weights: names, shapes and facts, without the tensors.

The header of a safetensors file gives an outline without importing torch, which takes seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import UserError
from ..files import file_digest
from ..normalization import INPUT_FACTS
from ..plain_resnets import COUNTER, PLAIN_RESNETS, Shape, canonical_shapes
from ..regular_files import open_regular
from .facts import in_rgb_order
from .recognition import candidates_in
from .state_dicts import state_dict
from .styles import CAFFE2
from .tensor_checks import find_arch
from .weight_set import WeightSet
from .weights_files import LARGEST_HEADER, find_weights_file, stored_facts

if TYPE_CHECKING:
    from .checkpoint import Weights

_FLOATS = ("F16", "F32", "F64")
_INTEGERS = ("BOOL", "I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64")


@dataclasses.dataclass(frozen=True)
class Outline(WeightSet[Shape]):
    """A set of weights without its tensors; `tensors` maps canonical names to shapes."""


@dataclasses.dataclass(frozen=True)
class TensorHeader:
    """A tensor in the header of a safetensors file.

    Attributes:
        shape: size in each dimension.
        dtype: type of the elements, as safetensors writes it (`F32`, `I64`, ...).
    """

    shape: Shape
    dtype: str

    def is_floating_point(self) -> bool:
        """Whether the elements are floating-point numbers."""
        return self.dtype in _FLOATS


def outline_of(weights: Weights) -> Outline:
    """Return the outline of weights in memory."""
    return Outline(
        **{**vars(weights), "tensors": {name: tuple(value.shape) for name, value in weights.tensors.items()}}
    )


def read_outline(path: Path) -> Outline | None:
    """Read the outline of a plain ResNet from a safetensors file, with the checks of `read_checkpoint`.

    Args:
        path: file or folder, as for `read_checkpoint`.

    Returns:
        The outline, or None if the file has to be read in full: it has another format, several networks, numbers that
        NumPy lacks, or anything wrong, which only `read_checkpoint` reports.
    """
    try:
        file = find_weights_file(path)
        with open_regular(file) as stream:
            start = stream.read(9)
            if start[8:] != b"{" or int.from_bytes(start[:8], "little") > LARGEST_HEADER:
                return None
        with safe_open(file, framework="numpy") as opened:
            return _outline(path, file, opened)
    except (UserError, SafetensorError, OSError, ArithmeticError, LookupError, TypeError, ValueError):
        return None


def _outline(path: Path, file: Path, opened: Any) -> Outline | None:
    slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - the file is no mapping
    headers = {name: TensorHeader(tuple(one.get_shape()), one.get_dtype()) for name, one in slices.items()}
    networks = [one for one in candidates_in(state_dict((), headers)) if one.is_whole]
    if len(networks) != 1 or networks[0].style is CAFFE2:
        return None
    names = networks[0].canonical()
    if not _is_sound(opened, {own: headers[own] for own in names.values()}):
        return None
    facts, is_timm = stored_facts(file, opened.metadata() or {})
    arch = find_arch(_with_counters(names, headers), facts.get("arch"))
    if arch not in PLAIN_RESNETS:
        return None
    used = set(names.values())
    unused = tuple(name for name in headers if name not in used)
    return Outline(
        name=str(path),
        arch=arch,
        tensors=canonical_shapes(arch, any(name.startswith("fpn.") for name in names)),
        facts=in_rgb_order({"input": INPUT_FACTS, **facts, "arch": arch}),
        digest=file_digest(file),
        source=str(file),
        format="timm" if is_timm else networks[0].family(bool(unused)).name,
        unused=unused,
        taken=networks[0].place,
    )


def _with_counters(names: Mapping[str, str], headers: Mapping[str, TensorHeader]) -> dict[str, TensorHeader]:
    """Add the batch counters, which many formats omit."""
    found = {name: headers[own] for name, own in names.items()}
    for name, header in list(found.items()):
        if name.endswith(".weight") and len(header.shape) == 1:
            found.setdefault(f"{name.removesuffix('weight')}{COUNTER}", TensorHeader((), "I64"))
    return found


def _is_sound(opened: Any, headers: Mapping[str, TensorHeader]) -> bool:
    """Whether NumPy can represent all tensors, and all numbers are finite."""
    if not all(header.dtype in (*_FLOATS, *_INTEGERS) for header in headers.values()):
        return False
    with np.errstate(all="ignore"):
        # A sum is finite only if all its terms are; an overflow leaves the file to be read in full.
        return all(
            np.isfinite(opened.get_tensor(name).sum()) for name, header in headers.items() if header.is_floating_point()
        )
