"""What identifies a set of weights; nothing here imports torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class WeightSet(Generic[T]):
    """A set of weights, with a value for each tensor: the tensor itself in `Weights`, its shape in `Outline`.

    Attributes:
        name: name in result tables (a registry name, a path, `hf-hub:...` or `random`).
        arch: timm name of the backbone.
        tensors: canonical name -> value; `backbone.*`, and `fpn.*` if the source has a pyramid.
        facts: metadata (objective, data set, steps, input mean/std, ...); empty if unknown.
        digest: `sha256:` + hex digest of the file, or of the tensors if there is no file.
        source: path or URL they were read from; `random` for an untrained network.
        format: naming scheme of the source (`canonical`, `torchvision`, `timm`, `detectron2`, ...).
        unused: source names of tensors in neither part (heads, queues, ...).
        taken: location of the network in the checkpoint file: keys, and the prefix of its names.
        others: locations of other complete networks in the file, such as a key encoder.
    """

    name: str
    arch: str
    tensors: Mapping[str, T]
    facts: Mapping[str, Any]
    digest: str
    source: str
    format: str
    unused: tuple[str, ...] = ()
    taken: str = ""
    others: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """The available parts, in order: `("backbone",)` or `("backbone", "fpn")`."""
        return tuple(part for part in ("backbone", "fpn") if any(name.startswith(f"{part}.") for name in self.tensors))
