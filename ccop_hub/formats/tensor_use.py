"""Load weights into a network: every requested tensor is loaded, or loading fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..errors import UserError, one_line
from .checkpoint import Weights

_LISTED = 3

PART_NAMES = {"backbone": "backbone", "fpn": "feature pyramid"}
"""Part of a network -> its name in messages."""


@dataclass(frozen=True, kw_only=True)
class TensorUse:
    """Names of the tensors that were loaded and of those that were not.

    Attributes:
        used: loaded into the network.
        unused: in the weights, but not loaded: from a part that was not requested, or from no part.
        missing: in the network, but not in the weights; left untrained.
    """

    used: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def load_into(
    network: nn.Module, weights: Weights, parts: Sequence[str] = ("backbone",), prefix: str = ""
) -> TensorUse:
    """Copy parts of the weights into a network with canonical names, such as a `BackboneFPN`, leaving others unchanged.

    Args:
        network: network with tensors named `backbone.*` and `fpn.*`, as in `Weights.tensors`.
        weights: resolved weights.
        parts: parts to load, `backbone` or `fpn` or both.
        prefix: prefix that the network's names lack, such as `backbone.` for a standalone backbone.

    Returns:
        The tensors of the weights, each in `used` or `unused`; `missing` is empty.

    Raises:
        UserError: a part is missing, or its tensors do not match the network, which is left unchanged.
    """
    require_parts(weights, parts)
    wanted = {name: value for name, value in weights.tensors.items() if name.partition(".")[0] in parts}
    state = {prefix + name: value for name, value in network.state_dict().items()}
    own = {name: value for name, value in state.items() if name.partition(".")[0] in parts}
    copy_exactly(own, wanted, weights.name, weights.arch)
    unused = sorted(set(weights.tensors) - set(wanted)) + list(weights.unused)
    return TensorUse(used=sorted(wanted), unused=unused)


def require_parts(weights: Weights, parts: Sequence[str]) -> None:
    """Check that the weights include all the given parts.

    Raises:
        UserError: a part is missing.
    """
    for part in parts:
        if part not in weights.parts:
            raise UserError(f"{weights.name} has no {PART_NAMES[part]}: give weights with one")


def require_fit(own: Mapping[str, Tensor], given: Mapping[str, Tensor], source: str, network: str) -> None:
    """Check that two sets of tensors have the same names and shapes.

    Args:
        own: tensors of the network to load into, as in its `state_dict()`.
        given: tensors to load, under the same names.
        source: name of the weights in messages.
        network: name of the network in messages.

    Raises:
        UserError: tensors are missing or unexpected, or shapes differ; the message names them.
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
    """Copy all given tensors into the network's tensors in place, or none of them.

    Takes the same arguments and raises the same errors as `require_fit`.
    """
    require_fit(own, given, source, network)
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(given[name])


def _shortened(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _LISTED else ""
    return ", ".join(one_line(name, 200) for name in names[:_LISTED]) + more
