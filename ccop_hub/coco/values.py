"""Lenient parsing of numbers, flags and ids in JSON files from arbitrary programs."""

from __future__ import annotations

import math
import re
import reprlib
from typing import Any

_INTEGER = re.compile(r"[+-]?\d{1,15}(\.0*)?")
_LARGEST_ID = 1 << 53
"""Largest id that survives a reader which parses numbers as floating point."""

_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 64

_FLAGS = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


class WrongValueError(ValueError):
    """A value that cannot be parsed. The message says what is wrong, not where."""


def number(value: Any) -> float:
    """Parse a finite number from a number or a string.

    Raises:
        WrongValueError: the value is neither, or not finite.
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
    """Parse a flag from 0, 1, true, false or null, or any of these as a string.

    Raises:
        WrongValueError: the value is anything else.
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
    """Parse an id: an integer if possible ("7" and 7.0 become 7), else a string.

    Raises:
        WrongValueError: the id is missing, or neither an integer nor a string.
    """
    if type(value) is int:
        return value if abs(value) < _LARGEST_ID else str(value)
    if type(value) is float and value.is_integer() and abs(value) < _LARGEST_ID:
        return int(value)
    if isinstance(value, str):
        text = value.strip()
        if _INTEGER.fullmatch(text):
            return int(text.partition(".")[0])
        if text and is_unicode(text):
            return text
    raise WrongValueError("it is missing" if value is None else f"{shown(value)} is neither an integer nor text")


def is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8, which unpaired surrogates from JSON escapes cannot."""
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def shown(value: Any) -> str:
    """Format a value for an error message: one line, truncated."""
    text = _SHORT.repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
