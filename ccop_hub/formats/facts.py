"""Validate the facts of a checkpoint, which come from untrusted files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError, one_line

CHANNEL_ORDERS = ("RGB", "BGR")
RANGES = ("0-255", "0-1")

_TYPES: Mapping[str, tuple[type, ...]] = {
    "arch": (str,),
    "objective": (str,),
    "dataset": (dict,),
    "input": (dict,),
    "settings": (dict,),
    "versions": (dict,),
    "fingerprint": (dict,),
    "licence": (str,),
    "epochs": (int, float),
    "steps": (int,),
    "batch_size": (int,),
}
_CALLED = {str: "text", dict: "an object", int: "a number", float: "a number"}


def checked_facts(facts: Mapping[str, Any], file: Path) -> dict[str, Any]:
    """Validate facts.

    Args:
        facts: facts as read from JSON. Null fields are treated as absent, and unknown ones are kept unchanged.
        file: file to name in errors.

    Raises:
        UserError: a field has the wrong type or is out of range. The message names the file, the field and the value.
    """
    found = {name: value for name, value in facts.items() if value is not None}
    for name, types in _TYPES.items():
        value = found.get(name)
        if value is not None and (not isinstance(value, types) or isinstance(value, bool)):
            raise _wrong(file, name, value, _CALLED[types[0]])
    if "input" in found:
        found["input"] = _checked_input(found["input"], file)
    return found


def in_rgb_order(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts with the mean and std of the input in RGB order, whatever the channel order."""
    shown = facts["input"]
    if shown["channel_order"] == "RGB":
        return dict(facts)
    turned = {"mean": shown["mean"][::-1], "std": shown["std"][::-1], "channel_order": "RGB"}
    return {**facts, "input": {**shown, **turned}}


def _checked_input(given: Mapping[str, Any], file: Path) -> dict[str, Any]:
    for name in ("mean", "std"):
        numbers = given.get(name)
        if not isinstance(numbers, list) or len(numbers) != 3 or not all(map(_is_number, numbers)):
            raise _wrong(file, f"input.{name}", numbers, "three numbers, one for each channel")
    if not all(value > 0 for value in given["std"]):
        raise _wrong(file, "input.std", given["std"], "three numbers above 0")
    order, scale = given.get("channel_order", "RGB"), given.get("range", "0-255")
    if order not in CHANNEL_ORDERS:
        raise _wrong(file, "input.channel_order", order, " or ".join(CHANNEL_ORDERS))
    if scale not in RANGES:
        raise _wrong(file, "input.range", scale, " or ".join(RANGES))
    return {**given, "channel_order": order, "range": scale}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _wrong(file: Path, field: str, value: Any, wanted: str) -> UserError:
    return UserError(
        f"{file}: metadata field {field} is {one_line(repr(value), 60)}, not {wanted}: correct it or export again"
    )
