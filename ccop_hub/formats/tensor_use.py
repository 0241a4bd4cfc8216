"""The one way in which weights get into a network: every tensor that is wanted arrives, or it is an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import UserError, one_line
from .checkpoint import Weights

_LISTED = 3

PART_NAMES = {"backbone": "backbone", "fpn": "feature pyramid"}
"""What messages call the parts of a network."""


@dataclass(frozen=True, kw_only=True)
class TensorUse:
    """Which of the weights' tensors were used, by name.

    Attributes:
        used: loaded into the network.
        unused: in the weights, but not loaded: of a part that was not asked for, or of no part at all.
        missing: in the network, but not in the weights: they started untrained.
    """

    used: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def load_into(
    network: nn.Module, weights: Weights, parts: Sequence[str] = ("backbone",), prefix: str = ""
) -> TensorUse:
    """Copy parts of the weights into a network with canonical names, such as a `ResNetFPN`; other parts keep theirs.

    Args:
        network: its tensors are called `backbone.*` and `fpn.*` as in `Weights.tensors`.
        weights: resolved weights.
        parts: the parts to load, `backbone` or `fpn` or both.
        prefix: what the network's own names leave off, such as `backbone.` for a backbone by itself.

    Returns:
        Every tensor of the weights is in `used` or in `unused`; `missing` is empty.

    Raises:
        UserError: a part is missing, or its tensors are not exactly the network's. The network is unchanged.
    """
    require_parts(weights, parts)
    wanted = {name: value for name, value in weights.tensors.items() if name.partition(".")[0] in parts}
    state = {prefix + name: value for name, value in network.state_dict().items()}
    own = {name: value for name, value in state.items() if name.partition(".")[0] in parts}
    copy_exactly(own, wanted, weights.name, weights.arch)
    unused = sorted(set(weights.tensors) - set(wanted)) + list(weights.unused)
    return TensorUse(used=sorted(wanted), unused=unused)


def require_parts(weights: Weights, parts: Sequence[str]) -> None:
    """Check that the weights have all the parts.

    Raises:
        UserError: they lack one.
    """
    for part in parts:
        if part not in weights.parts:
            raise UserError(f"{weights.name} has no {PART_NAMES[part]}: give weights with one")


def require_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str, network: str) -> None:
    """Check that two sets of tensors have the same names and shapes.

    Args:
        own: the network's tensors that are to be loaded, as its `state_dict()` has them.
        given: tensors under the same names.
        source: what messages call the weights.
        network: what messages call the network.

    Raises:
        UserError: a tensor is missing, one has no place, or shapes differ; the error names them.
    """
    missing = [name for name in own if name not in given]
    surplus = [name for name in given if name not in own]
    reshaped = [
        f"{name} is {tuple(given[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in given and given[name].shape != value.shape
    ]
    problems = [
        f"{problem} {len(names)} {'tensor' if len(names) == 1 else 'tensors'} ({_shortened(names)})"
        for problem, names in (
            ("it lacks", missing),
            ("the network has no place for", surplus),
            ("shapes differ in", reshaped),
        )
        if names
    ]
    if problems:
        raise UserError(
            f"{source} does not fit the {network}: {'; '.join(problems)}. Use weights of this exact architecture"
        )


def copy_exactly(own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str, network: str) -> None:
    """Copy every tensor given into the network's own tensor of that name, in place; all of them or none.

    Takes the same arguments and raises the same errors as `require_fit`.
    """
    require_fit(own, given, source, network)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(given[name])


def _shortened(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _LISTED else ""
    return ", ".join(one_line(name, 200) for name in names[:_LISTED]) + more
