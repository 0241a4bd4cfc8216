"""What a number, a flag and an id may look like in a JSON that some program or other wrote."""

from __future__ import annotations

import math
import re
from typing import Any

_INTEGER = re.compile(r"[+-]?\d{1,15}(\.0*)?")
_LARGEST_ID = 1 << 53
"""Ids up to here survive every reader that takes them for floating-point numbers."""

_FLAGS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


class WrongValueError(ValueError):
    """A value that cannot be read; the text says what is wrong with it, without saying where it is."""


def number(value: Any) -> float:
    """A finite number from a number or a text.

    Raises:
        WrongValueError: neither, or not finite.
    """
    if type(value) is float or type(value) is int:
        found = value
    elif isinstance(value, str):
        try:
            found = float(value)
        except ValueError:
            raise WrongValueError(f"{shown(value)} is not a number") from None
    else:
        raise WrongValueError(f"{shown(value)} is not a number")
    try:
        if math.isfinite(found):
            return found
    except OverflowError:
        pass
    raise WrongValueError(f"{shown(value)} is not a finite number")


def flag(value: Any) -> bool:
    """A flag from 0, 1, true, false, null or any of them as text.

    Raises:
        WrongValueError: anything else.
    """
    if value is None or value is False or value is True:
        return bool(value)
    if isinstance(value, str):
        text = value.strip().lower()
        value = _FLAGS[text] if text in _FLAGS else float(text) if text in ("0.0", "1.0") else value
    if isinstance(value, (int, float)) and value in (0, 1):
        return bool(value)
    raise WrongValueError(f"{shown(value)} is neither 0 nor 1")


def identifier(value: Any) -> int | str:
    """An id: a whole number where it can be read as one ("7" and 7.0 are 7), else the text.

    Raises:
        WrongValueError: absent, or neither a whole number nor a text.
    """
    if type(value) is int:
        return value if abs(value) < _LARGEST_ID else str(value)
    if type(value) is float and value.is_integer() and abs(value) < _LARGEST_ID:
        return int(value)
    if isinstance(value, str):
        text = value.strip()
        if _INTEGER.fullmatch(text):
            return int(text.partition(".")[0])
        if text:
            return text
    raise WrongValueError("it is missing" if value is None else f"{shown(value)} is neither an integer nor text")


def shown(value: Any) -> str:
    """A value for a person to recognise, on one line and not too long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
