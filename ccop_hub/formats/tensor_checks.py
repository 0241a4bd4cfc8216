"""Validate the tensors of a network from any file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from ..architectures import ResNetFPN, build_backbone
from ..errors import UserError, one_line
from .names import layout_of
from .rebuilders import NotDense

_LISTED = 5

SAME_NAMES = {
    "resnet50": ("resnet50", "wide_resnet50_2", "resnext50_32x4d"),
    "resnet101": ("resnet101", "wide_resnet101_2", "resnext101_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
}
"""timm ResNets with the same tensor names as a layout but different shapes."""


def require_sound(tensors: Mapping[str, Tensor | NotDense]) -> None:
    """Check that tensors are dense, numeric, on the CPU, finite, and no larger than their storage.

    With a stride of 0, a tensor can claim any shape over a small storage; copying it would exhaust the memory.

    Raises:
        UserError: a tensor is invalid; the message names it.
    """
    for name, value in tensors.items():
        if not isinstance(value, Tensor) or not _is_dense(value):
            raise UserError(f"{one_line(name)} is not a dense tensor of real numbers: save weights as ordinary tensors")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            shape = tuple(value.shape)
            raise UserError(
                f"{one_line(name)} has shape {shape} but a smaller storage: call .contiguous() before saving"
            )
    numbers = {name: value for name, value in tensors.items() if isinstance(value, Tensor)}
    bad = [name for name, value in numbers.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise UserError(f"NaN or infinite numbers in {_shortened(bad)}: use weights from before the run diverged")


def _is_dense(value: Tensor) -> bool:
    plain = value.layout is torch.strided and not value.is_quantized and not value.is_complex()
    return plain and value.device.type == "cpu"


def find_arch(tensors: Mapping[str, Tensor], arch: str | None) -> str:
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
        candidates = SAME_NAMES.get(layout, (layout,))
    first: list[str] = []
    for candidate in candidates:
        wrong = _wrong_tensors(tensors, candidate)
        if not wrong:
            return candidate
        first = first or wrong
    raise UserError(f"tensors are not those of a {candidates[0]}: {_shortened(first)}. Use weights of a timm ResNet")


def expected_tensors(arch: str, with_fpn: bool) -> dict[str, Tensor]:
    """Return the expected tensors of `arch` on the `meta` device: canonical name -> tensor, in state-dict order."""
    with torch.device("meta"):
        if with_fpn:
            return ResNetFPN(arch).state_dict()
        return {f"backbone.{name}": value for name, value in build_backbone(arch).state_dict().items()}


def _wrong_tensors(tensors: Mapping[str, Tensor], arch: str) -> list[str]:
    expected = expected_tensors(arch, any(name.startswith("fpn.") for name in tensors))
    wrong = []
    for name, value in tensors.items():
        wanted = expected.get(name)
        if wanted is None:
            wrong.append(f"{name} has no place")
        elif wanted.shape != value.shape:
            wrong.append(f"{name} is {tuple(value.shape)}, not {tuple(wanted.shape)}")
        elif wanted.is_floating_point() != value.is_floating_point():
            wrong.append(f"{name} is of type {str(value.dtype).removeprefix('torch.')}")
    return wrong


def _shortened(names: list[str]) -> str:
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(one_line(name, 200) for name in names[:_LISTED]) + more
