"""Self-validating settings: each field's type defines its range or choices.

A settings class is a frozen dataclass derived from `Validated`. Its annotations define the allowed values
(`Annotated[int, Ge(1)]`, `Literal["fast", "quality"]`). Pydantic converts and validates the values whenever an instance
is created, whether from flags, YAML or Python. It is only imported then, so that `--help` stays fast.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from annotated_types import Ge, GroupedMetadata, Gt, Interval, Le, Len, Lt, Predicate

from .errors import UserError, one_line

if TYPE_CHECKING:
    from pydantic import BaseModel

PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
Seed = Annotated[int, Interval(ge=0, le=2**32 - 1)]
"""A seed valid for NumPy, torch and Detectron2."""


_TYPES: dict[type[Any], dict[str, Any]] = {}
_MODELS: dict[type[Any], type[BaseModel]] = {}


@dataclasses.dataclass(frozen=True)
class Described:
    """Description of a type whose range cannot be expressed as bounds: `two numbers, the smaller one first`."""

    text: str


@dataclasses.dataclass(frozen=True)
class OneOf(GroupedMetadata):
    """Choices of a string that are only known at run time, such as file names."""

    words: tuple[str, ...]

    def __iter__(self) -> Iterator[Any]:
        """Yield the constraints that pydantic checks."""
        yield Predicate(self.words.__contains__)


def _rises(pair: Sequence[float]) -> bool:
    return pair[0] <= pair[1]


Rising = Predicate(_rises)
"""Constraint on a pair: the first value must not exceed the second."""


class SettingError(UserError):
    """A setting has an invalid value.

    Attributes:
        field: name of the setting.
    """

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class Validated:
    """Base of all settings classes; validates the type and range of each field.

    Raises:
        SettingError: a value is invalid. The message names the flag, the value and the allowed values.
        UserError: the settings are incompatible with each other; see `check_together`.
    """

    TOPIC: ClassVar[str] = "Settings"
    """Heading in `--help-all` of the fields that a class adds."""

    def __post_init__(self) -> None:
        fields = dataclasses.fields(self)  # type: ignore[arg-type]  # the subclasses are dataclasses
        values = {field.name: getattr(self, field.name) for field in fields}
        for name, value in _validated(type(self), values).items():
            object.__setattr__(self, name, value)
        self.check_together()

    def check_together(self) -> None:
        """Reject incompatible combinations of settings. Override in subclasses.

        Raises:
            UserError: the combination is not allowed. The message names the flags and says what to do.
        """


def flag(name: str) -> str:
    """Return the flag of a field: `image_size` -> `--image-size`."""
    return f"--{name.replace('_', '-')}"


def shown(value: Any) -> str:
    """Format a value as the user would type it."""
    if isinstance(value, list | tuple):
        return " ".join(shown(item) for item in value)
    return "none" if value is None else one_line(value) if str(value) else "''"


def field_types(settings: type[Any]) -> dict[str, Any]:
    """Map each field of a settings class to its type, including bounds."""
    if settings in _TYPES:
        return _TYPES[settings]
    hints = typing.get_type_hints(settings, include_extras=True)
    _TYPES[settings] = {field.name: hints[field.name] for field in dataclasses.fields(settings)}
    return _TYPES[settings]


def field_help(settings: type[Any]) -> dict[str, str]:
    """Map each field to its entry in `Args`; subclasses override their bases."""
    from docstring_parser import parse as parse_docstring

    texts: dict[str, str] = {}
    for base in reversed(settings.__mro__):
        for entry in parse_docstring(base.__doc__ or "").params:
            texts[entry.arg_name] = " ".join((entry.description or "").split())
    return texts


def describe(kind: Any) -> str:
    """Describe the values that a type allows: `a whole number, 1 or more`."""
    plain, bounds = without_bounds(kind)
    described = [bound.text for bound in bounds if isinstance(bound, Described)]
    if described:
        return described[0]
    origin, arguments = typing.get_origin(plain), typing.get_args(plain)
    words = choices(kind) if plain is str or origin is Literal else []
    if words:
        return " or ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(describe(choice) for choice in arguments if choice is not type(None))
    if origin is tuple:
        return f"{len(arguments)} values, each {describe(arguments[0])}"
    if origin is list:
        return f"one or more values, each {describe(arguments[0])}"
    names = {int: "a whole number", float: "a number", bool: "true or false", Path: "a path", str: "text"}
    name, limits = names.get(plain, "another value"), _limits(bounds)
    if limits.startswith(("from", "above", "below")):
        return f"{name} {limits}"
    return f"{name}, {limits}" if limits else name


def without_bounds(kind: Any) -> tuple[Any, tuple[Any, ...]]:
    """Split a type into the bare type and its annotations."""
    if typing.get_origin(kind) is Annotated:
        plain, *bounds = typing.get_args(kind)
        return plain, tuple(bounds)
    return kind, ()


def choices(kind: Any) -> list[str]:
    """Return the choices of a type, if it has any."""
    plain, bounds = without_bounds(kind)
    if typing.get_origin(plain) is Literal:
        return [str(choice) for choice in typing.get_args(plain)]
    listed = [word for bound in bounds if isinstance(bound, OneOf) for word in bound.words]
    if listed:
        return listed
    return [word for part in typing.get_args(plain) for word in choices(part)]


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """Return `; did you mean X?` for the closest known word; empty if none is close."""
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _limits(bounds: Sequence[Any]) -> str:
    low = high = above = below = None
    for bound in bounds:
        low = getattr(bound, "ge", None) if getattr(bound, "ge", None) is not None else low
        high = getattr(bound, "le", None) if getattr(bound, "le", None) is not None else high
        above = getattr(bound, "gt", None) if getattr(bound, "gt", None) is not None else above
        below = getattr(bound, "lt", None) if getattr(bound, "lt", None) is not None else below
    if low is not None and high is not None:
        return f"from {low} to {high}"
    if low is not None:
        return f"{low} or more" + (f" and below {below}" if below is not None else "")
    parts = [f"above {above}" if above is not None else "", f"below {below}" if below is not None else ""]
    parts.append(f"at most {high}" if high is not None else "")
    return " and ".join(filter(None, parts))


def _model(settings: type[Any]) -> type[BaseModel]:
    if settings in _MODELS:
        return _MODELS[settings]
    from pydantic import ConfigDict, create_model

    fields: dict[str, Any] = {name: (kind, ...) for name, kind in field_types(settings).items()}
    config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())
    _MODELS[settings] = create_model(settings.__name__, __config__=config, **fields)
    return _MODELS[settings]


def _validated(settings: type[Any], values: dict[str, Any]) -> dict[str, Any]:
    """Convert the values to the types of their fields."""
    from pydantic import ValidationError

    kinds = field_types(settings)
    values = {name: _as_typed(value, kinds[name]) for name, value in values.items()}
    for name, value in values.items():
        if not _is_plausible(value, kinds[name]):
            raise _refusal(name, value, kinds[name])
    try:
        checked = _model(settings)(**values)
    except ValidationError as error:
        name = str(error.errors(include_url=False)[0]["loc"][0])
        raise _refusal(name, values[name], kinds[name]) from None
    return {name: getattr(checked, name) for name in values}


def _as_typed(value: Any, kind: Any) -> Any:
    """Return a path as text where a field takes text (a file of weights may be given as either); expand `~/`."""
    if isinstance(value, list | tuple):
        return [_as_typed(item, kind) for item in value]
    leaves = _leaves(kind) if isinstance(value, PurePath | str) else set()
    if Path in leaves and str not in leaves:
        return os.path.expanduser(value) if str(value).startswith("~/") else value  # noqa: PTH111
    return str(value) if str in leaves and isinstance(value, PurePath) else value


def _is_plausible(value: Any, kind: Any) -> bool:
    """Whether to let pydantic convert a value: it would accept `true` as 1, and an empty string as a path."""
    if isinstance(value, bool):
        return bool in _leaves(kind)
    if isinstance(value, list | tuple):
        return all(_is_plausible(item, kind) for item in value)
    return not isinstance(value, str) or (bool(value.strip()) and _is_encodable(value))


def _is_encodable(text: str) -> bool:
    """Whether the system can be passed a text, such as a path; a file of settings can contain any character."""
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _leaves(kind: Any) -> set[Any]:
    plain, _ = without_bounds(kind)
    arguments = typing.get_args(plain)
    if not arguments or typing.get_origin(plain) is Literal:
        return {plain}
    return set().union(*(_leaves(part) for part in arguments))


def _refusal(name: str, value: Any, kind: Any) -> SettingError:
    near = did_you_mean(value, choices(kind)) if isinstance(value, str) else ""
    plain, _ = without_bounds(kind)
    several = typing.get_origin(plain) in (list, tuple, typing.Union, types.UnionType)
    text = shown(value) if several or not isinstance(value, list) else one_line(value)
    return SettingError(name, f"{flag(name)} {text} is not allowed: give {describe(kind)}{near}")


__all__ = [
    "Described",
    "Ge",
    "Gt",
    "Interval",
    "Le",
    "Len",
    "Lt",
    "NonNegativeFloat",
    "NonNegativeInt",
    "OneOf",
    "PositiveFloat",
    "PositiveInt",
    "Predicate",
    "Rising",
    "Seed",
    "SettingError",
    "Share",
    "Validated",
    "choices",
    "describe",
    "did_you_mean",
    "field_help",
    "field_types",
    "flag",
    "shown",
    "without_bounds",
]
