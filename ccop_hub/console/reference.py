"""Describe the settings of a command in words, for its help and for the reference pages."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any, Literal

from ..validation import choices, describe, field_help, field_types, flag, without_bounds
from .command import Command


@dataclasses.dataclass(frozen=True)
class SettingReference:
    """One setting of a command.

    Attributes:
        name: name of the field.
        flag: flag of the command line.
        kind: type of its values, without bounds and None.
        metavar: stands for the value in the help, such as `N`; empty for a switch.
        help: what the setting does, as a sentence.
        default: default as the user would type it; empty if there is none or it is off.
        range: bounds of a number in words; empty if there are none.
        choices: the allowed words, if only some are.
        topic: heading that the setting stands under.
        required: whether it has no default.
        positional: whether it can be given without its flag.
    """

    name: str
    flag: str
    kind: Any
    metavar: str
    help: str
    default: str
    range: str
    choices: tuple[str, ...]
    topic: str
    required: bool
    positional: bool


def setting_references(command: Command) -> list[SettingReference]:
    """Return the settings of a command: positional ones first, then required, common and other ones."""
    kinds, texts, topics = field_types(command.settings), field_help(command.settings), setting_topics(command.settings)
    fields = {field.name: field for field in dataclasses.fields(command.settings)}
    required = command.required()
    names = dict.fromkeys([*command.positional, *required, *command.common, *fields])
    return [
        SettingReference(
            name=name,
            flag=flag(name),
            kind=without_none(kinds[name]),
            metavar="" if without_none(kinds[name]) is bool else _metavar(without_none(kinds[name])),
            help=texts.get(name, "")[:1].upper() + texts.get(name, "")[1:],
            default=_as_typed(_default(fields[name])),
            range=_range(kinds[name]),
            choices=tuple(choices(kinds[name])),
            topic=topics[name],
            required=name in required,
            positional=name in command.positional,
        )
        for name in names
    ]


def without_none(kind: Any, keep_bounds: bool = False) -> Any:
    """Strip `None`, and by default the bounds, from a type."""
    plain_kind, _ = without_bounds(kind)
    arguments = typing.get_args(plain_kind)
    if type(None) in arguments:
        others = tuple(part for part in arguments if part is not type(None))
        if len(others) == 1:
            return without_none(others[0], keep_bounds)
    return kind if keep_bounds else plain_kind


def _metavar(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is tuple:
        return " ".join([_metavar(without_bounds(arguments[0])[0])] * len(arguments))
    if origin is list:
        return f"{_metavar(without_bounds(arguments[0])[0])}..."
    if origin is Literal:
        return "NAME"
    if arguments:
        return _metavar(without_bounds(arguments[0])[0])
    return {int: "N", float: "X", Path: "PATH"}.get(kind, "NAME")


def _range(kind: Any) -> str:
    """Describe the bounds of a number in words; empty if there are none."""
    plain_kind = without_none(kind)
    if plain_kind in (bool, Path, str) or choices(plain_kind):
        return ""
    words = describe(without_none(kind, keep_bounds=True))
    for start in ("a whole number, ", "a number, ", "a whole number ", "a number "):
        if words.startswith(start):
            return words.removeprefix(start)
    return ""


def _as_typed(value: Any) -> str:
    """Format a default as the user would type it; empty for none, an empty list and a switch that is off."""
    if value is None or value is False:
        return ""
    if isinstance(value, tuple | list):
        return " ".join(_as_typed(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if value is True else str(value)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return None if field.default is dataclasses.MISSING else field.default


def setting_topics(settings: type[Any]) -> dict[str, str]:
    """Map each field to the help heading of the class that adds it."""
    topics: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        for name in vars(base).get("__annotations__", {}):
            topics.setdefault(name, getattr(base, "TOPIC", "Settings"))
    return topics
