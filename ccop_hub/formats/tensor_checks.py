"""Validate the tensors of a network from any file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

from ..errors import UserError, first_names, one_line
from ..plain_resnets import COUNTER, PLAIN_RESNETS, Shape, canonical_shapes, same_names
from .inert_pickle import NotDense
from .names import layout_of

if TYPE_CHECKING:
    from torch import Tensor

_LISTED = 5


class Shaped(Protocol):
    """What recognising a network needs to know of a tensor; `torch.Tensor` provides it."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Size in each dimension."""

    @property
    def dtype(self) -> object:
        """Type of the elements."""

    def is_floating_point(self) -> bool:
        """Whether the elements are floating-point numbers."""


def require_sound(tensors: Mapping[str, Tensor | NotDense]) -> None:
    """Check that tensors are dense, numeric, on the CPU, finite in float32, and no larger than their storage.

    Variances must not be negative. With a stride of 0, a tensor can claim any shape over a small storage; copying it
    would exhaust the memory.

    Raises:
        UserError: a tensor is invalid; the message names it.
    """
    for name, value in tensors.items():
        if isinstance(value, NotDense) or not _is_dense(value):
            raise UserError(f"{one_line(name)} is not a dense tensor of real numbers: save weights as ordinary tensors")
        if not _is_supported(value):
            kind = str(value.dtype).removeprefix("torch.")
            raise UserError(f"{one_line(name)} is of type {kind}: use weights in float32, float16 or bfloat16")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            shape = tuple(value.shape)
            raise UserError(
                f"{one_line(name)} has shape {shape} but a smaller storage: call .contiguous() before saving"
            )
    numbers = {name: value for name, value in tensors.items() if not isinstance(value, NotDense)}
    bad = [name for name, value in numbers.items() if value.is_floating_point() and not _is_finite(value)]
    if bad:
        raise UserError(
            f"NaN or infinite numbers in {first_names(bad, _LISTED)}: use weights from before the run diverged"
        )
    negative = [name for name, value in numbers.items() if name.endswith("running_var") and bool((value < 0).any())]
    if negative:
        raise UserError(
            f"negative variances in {first_names(negative, _LISTED)}: use weights from before the run diverged"
        )
    wide = {name: value for name, value in numbers.items() if value.is_floating_point() and value.element_size() > 4}
    large = [name for name, value in wide.items() if not value.float().isfinite().all()]
    if large:
        raise UserError(
            f"numbers too large for float32 in {first_names(large, _LISTED)}: use weights that did not diverge"
        )


def _is_dense(value: Tensor) -> bool:
    import torch

    plain = isinstance(value, torch.Tensor) and value.layout is torch.strided
    return plain and not value.is_quantized and not value.is_complex() and value.device.type == "cpu"


def _is_supported(value: Tensor) -> bool:
    """Whether torch computes with the type; for others, such as float8 and uint16, most operations are missing."""
    import torch

    floating = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    return value.dtype in (*floating, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool)


def _is_finite(value: Tensor) -> bool:
    # A sum is finite only if all its terms are, and costs a tenth of testing each; it may also overflow.
    return bool(value.sum().isfinite()) or bool(value.isfinite().all())


def find_arch(tensors: Mapping[str, Shaped], arch: str | None) -> str:
    """Return the timm name of the ResNet that matches the names and shapes of canonical tensors.

    Args:
        tensors: canonical name -> tensor; the names must be complete.
        arch: architecture stated by the source, if any.

    Raises:
        UserError: shapes or types do not match the network; the message lists them.
    """
    backbone = [name.removeprefix("backbone.") for name in tensors if name.startswith("backbone.")]
    layout = layout_of(backbone)
    if arch is not None:
        candidates: tuple[str, ...] = (arch,)
    elif layout is None:
        raise UserError("these weights contain no backbone: give a file with one")
    else:
        candidates = same_names(layout)
    first: list[str] = []
    for candidate in candidates:
        wrong = _wrong_tensors(tensors, candidate)
        if not wrong:
            return candidate
        first = first or wrong
    raise UserError(
        f"tensors are not those of a {candidates[0]}: {first_names(first, _LISTED)}. Use weights of a timm backbone"
    )


def expected_shapes(arch: str, with_fpn: bool) -> dict[str, Shape]:
    """Return canonical name -> shape of the tensors of any backbone, in state-dict order.

    Raises:
        UserError: timm has no such network, or it is not supported.
    """
    if arch in PLAIN_RESNETS:
        return canonical_shapes(arch, with_fpn)
    from ..architectures import empty_network  # imports torch

    state = empty_network(arch).state_dict()
    return {name: tuple(value.shape) for name, value in state.items() if with_fpn or name.startswith("backbone.")}


def _wrong_tensors(tensors: Mapping[str, Shaped], arch: str) -> list[str]:
    expected = expected_shapes(arch, any(name.startswith("fpn.") for name in tensors))
    wrong = []
    for name, value in tensors.items():
        wanted = expected.get(name)
        if wanted is None:
            wrong.append(f"{name} has no place")
        elif wanted != tuple(value.shape):
            wrong.append(f"{name} is {tuple(value.shape)}, not {wanted}")
        elif name.endswith(COUNTER) == value.is_floating_point():
            wrong.append(f"{name} is of type {str(value.dtype).removeprefix('torch.')}")
    return wrong
