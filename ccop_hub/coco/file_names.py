"""Resolve the `file_name` of an image entry, whichever program and platform wrote it."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

from .values import WrongValueError, shown

_LONGEST = 4096
"""Characters of the longest path on Linux (`PATH_MAX`); other systems allow fewer."""

_DEEPEST = 32
"""Folders of a path within an image folder; those before are looked up only together."""


def file_name(value: object) -> str:
    """Check a `file_name`.

    Raises:
        WrongValueError: not a string, empty, too long, or not a valid file name.
    """
    if not isinstance(value, str) or not value.strip():
        raise WrongValueError("it is missing" if not value else f"{shown(value)} is not a name")
    if len(value) > _LONGEST:
        raise WrongValueError(f"{shown(value[:_LONGEST])} has {len(value)} characters, more than any path")
    try:
        encoded = os.fsencode(value)
    except UnicodeEncodeError:
        raise WrongValueError(f"{shown(value)} is not a name that a file can have") from None
    if b"\0" in encoded:
        raise WrongValueError(f"{shown(value)} is not a name that a file can have")
    return value


def find_file(name: str, exists: Callable[[str], bool]) -> str | None:
    """Return the first candidate for a name that exists, or None.

    Args:
        name: the name in the JSON.
        exists: tells whether a POSIX path relative to the image folder is a file.
    """
    return next((candidate for candidate in candidates(name) if exists(candidate)), None)


def image_name(entry: Mapping[str, object]) -> str:
    """Return the `file_name` of an image entry, or what its `coco_url` names (LVIS has no file names).

    Raises:
        WrongValueError: as for `file_name`.
    """
    given, url = entry.get("file_name"), entry.get("coco_url")
    if not given and isinstance(url, str):
        given = unquote(urlsplit(url).path).lstrip("/")
    return file_name(given)


def same_name(one: str, other: str) -> bool:
    """Whether two names differ at most in slashes and surrounding spaces."""
    return _plain(one) == _plain(other)


def _plain(name: str) -> str:
    return posixpath.normpath(name.strip().replace("\\", "/"))


def candidates(name: str) -> Iterator[str]:
    """Yield possible readings of a name, in this order.

    First unchanged, with forward slashes, unescaped, and without leading folders; then the same in other Unicode
    normal forms, which archives from macOS have, and with the suffix in lower and upper case.
    """
    readings = dict.fromkeys(_readings(name))
    yield from readings
    spellings = (text for reading in readings for text in _spellings(reading))
    yield from dict.fromkeys(text for text in spellings if text not in readings)


def _spellings(path: str) -> Iterator[str]:
    stem, suffix = posixpath.splitext(path)
    for text in dict.fromkeys((path, stem + suffix.lower(), stem + suffix.upper())):
        yield text
        if not text.isascii():
            yield unicodedata.normalize("NFC", text)
            yield unicodedata.normalize("NFD", text)


def _readings(name: str) -> Iterator[str]:
    literal = [name]
    if name.strip() != name:
        literal.append(name.strip())
    if "\\" in name:
        literal.append(name.strip().replace("\\", "/"))
    if "://" in name:
        literal.append(urlsplit(name.strip()).path.lstrip("/"))
    literal += [unquote(text) for text in literal if "%" in text]
    yield from literal
    for text in dict.fromkeys(literal[-2:]):
        parts = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".")]
        for first in range(max(0, len(parts) - _DEEPEST), len(parts)):
            yield "/".join(parts[first:])


def file_in(folder: Path) -> Callable[[str], bool]:
    """Return the `exists` function of `find_file` for a folder; absolute paths never exist."""
    base = os.fspath(folder)

    def exists(name: str) -> bool:
        return not os.path.isabs(name) and os.path.isfile(os.path.join(base, name))  # noqa: PTH113, PTH117, PTH118

    return exists
