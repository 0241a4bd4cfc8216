"""Which format a state dict is in, told by its tensor names, and the network in it under canonical names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from torch import Tensor

from .errors import UserError
from .names import KeyMismatchError, layout_of, to_canonical


@dataclasses.dataclass(frozen=True)
class Identified:
    """A network found in a state dict.

    Attributes:
        format: name of the format.
        arch: timm name of the backbone.
        tensors: canonical name -> tensor.
        unused: names, as the source has them, of tensors that belong neither to the backbone nor to the pyramid.
    """

    format: str
    arch: str
    tensors: dict[str, Tensor]
    unused: tuple[str, ...]


def identify(state: Mapping[str, Tensor], arch: str | None = None) -> Identified:
    """Recognise a state dict by its names.

    Raises:
        UserError: no known format, or one with names missing or unknown.
    """
    heads = tuple(name for name in state if name in ("fc.weight", "fc.bias"))
    body = {name: value for name, value in state.items() if name not in heads}
    for scheme in ("canonical", "torchvision", "detectron2"):
        try:
            tensors = to_canonical(body, scheme, arch)
        except KeyMismatchError as error:
            mismatch = error
            continue
        found = arch or layout_of(name.removeprefix("backbone.") for name in tensors if name.startswith("backbone."))
        if found is not None:
            return Identified(scheme, found, tensors, heads)
    raise mismatch if "mismatch" in locals() else UserError("no network in this file")
