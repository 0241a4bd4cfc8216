"""Accept flags and settings renamed since earlier versions, with a note on the current name."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..saved_settings import RENAMED, RENAMED_PRECISIONS
from ..validation import flag

_PRECISION = "precision"


def in_current_flags(program: str, words: Sequence[str], known: Collection[str]) -> list[str]:
    """Replace renamed flags and values in a command line, with a note on standard error.

    Args:
        program: name of the program, for the note.
        words: arguments after the command's name.
        known: names of the command's settings.
    """
    current: list[str] = []
    notes: list[str] = []
    for word in words:
        is_flag = word.startswith("--")
        before, equals, value = word.partition("=") if is_flag else ("", "", word)
        name = before.removeprefix("--").replace("-", "_")
        renamed = RENAMED.get(name)
        if is_flag and renamed is not None and renamed in known:
            notes.append(f"{before} is now {flag(renamed)}")
            before, name = flag(renamed), renamed
        if not is_flag and current:
            name = current[-1].removeprefix("--")
        if name == _PRECISION and name in known and value in RENAMED_PRECISIONS:
            notes.append(f"{flag(_PRECISION)} {value} is now {RENAMED_PRECISIONS[value]}")
            value = RENAMED_PRECISIONS[value]
        current.append(f"{before}{equals}{value}")
    note(program, notes)
    return current


def renamed_settings(content: Mapping[str, Any], places: Mapping[str, str]) -> list[str]:
    """Return a note for each renamed setting or value in a settings file.

    Args:
        content: the settings as written in the file.
        places: current name of a setting -> `FILE:LINE`.
    """
    notes = [f"{places[RENAMED[name]]}: {name} is now {RENAMED[name]}" for name in content if name in RENAMED]
    value = content.get(_PRECISION)
    if isinstance(value, str) and value in RENAMED_PRECISIONS:
        notes.append(f"{places[_PRECISION]}: {_PRECISION} {value} is now {RENAMED_PRECISIONS[value]}")
    return notes


def note(program: str, notes: Sequence[str]) -> None:
    """Print all renames on one line of standard error, if there are any."""
    if notes:
        print(f"{program}: {', '.join(dict.fromkeys(notes))}", file=sys.stderr)
