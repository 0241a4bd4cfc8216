"""Find state dicts at any depth of a checkpoint, and strip wrappers from their names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from .inert_pickle import NotDense, Note

WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module")
"""Name components added by DistributedDataParallel, `torch.compile`, FSDP, activation checkpointing and Fabric."""

_MOST_CONTAINERS = 200_000
"""Maximum number of containers to search; an optimizer has a few thousand."""

_DEEPEST = 24
"""Maximum nesting depth to search; real files have at most ten levels."""


@dataclasses.dataclass(frozen=True)
class StateDict:
    """A state dict in a file.

    Attributes:
        path: keys that lead to it in the file.
        tensors: name in the file -> tensor, or `NotDense`; only the header of one in an `outline`.
        names: name without wrappers -> name in the file.
    """

    path: tuple[str, ...]
    tensors: Mapping[str, Any]
    names: Mapping[str, str]


def state_dicts(tree: Any) -> list[StateDict]:
    """Find all mappings of strings to tensors, outermost first.

    Includes `dict` subclasses, but not the attributes of other objects.
    """
    from torch import Tensor

    found: list[StateDict] = []
    seen: set[int] = set()
    pending: list[tuple[tuple[str, ...], Any]] = [((), tree)]
    for path, value in pending:
        if len(seen) >= _MOST_CONTAINERS:
            break
        items = _items(value)
        if items is None or id(value) in seen or len(path) > _DEEPEST:
            continue
        seen.add(id(value))
        tensors = {key: item for key, item in items if isinstance(key, str) and isinstance(item, Tensor | NotDense)}
        if tensors:
            found.append(state_dict(path, tensors))
        pending += [((*path, str(key)), item) for key, item in items if isinstance(item, Mapping | list | tuple | Note)]
    return found


def flattened(states: Sequence[StateDict]) -> StateDict:
    """Merge all state dicts into one, prefixing the names with the keys that lead to them."""
    joined = {".".join((*state.path, name)): value for state in states for name, value in state.tensors.items()}
    return state_dict((), joined)


def pickled_module(tree: Any) -> str | None:
    """Return the class name of a completely pickled `torch.nn.Module`, if the file contains one."""
    seen: set[int] = set()
    pending = [tree]
    for value in pending:
        if id(value) in seen or len(seen) >= _MOST_CONTAINERS:
            continue
        seen.add(id(value))
        if isinstance(value, Note) and isinstance(value.state, Mapping):
            if "_modules" in value.state and "_parameters" in value.state:
                # For objects built by copy_reg, the class is an argument.
                classes = [one for one in value.arguments if isinstance(one, Note)]
                return classes[0].name if classes and value.name.startswith("copy") else value.name
            pending += value.state.values()
        pending += [item for _, item in _items(value) or ()]
    return None


def _items(value: Any) -> list[tuple[Any, Any]] | None:
    if isinstance(value, Note):
        return [*value.items.items(), *enumerate(value.entries)]
    if isinstance(value, Mapping):
        return list(value.items())
    return list(enumerate(value)) if isinstance(value, list | tuple) else None


def state_dict(path: tuple[str, ...], tensors: Mapping[str, Any]) -> StateDict:
    """Build the state dict found under `path`, and strip wrappers from its names."""
    short = {own: ".".join(part for part in own.split(".") if part not in WRAPPERS) for own in tensors}
    counts: dict[str, int] = {}
    for name in short.values():
        counts[name] = counts.get(name, 0) + 1
    return StateDict(path, tensors, {name if counts[name] == 1 else own: own for own, name in short.items()})
