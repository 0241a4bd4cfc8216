"""Read settings from YAML files: `--config FILE` and `--setting NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..bounded_yaml import read_yaml
from ..errors import UserError
from ..saved_settings import RENAMED, in_current_names
from ..validation import did_you_mean
from .renamed import note, renamed_settings


def read_config(program: str, path: Path, known: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Read a YAML file; return its settings under their current names, and the location (`FILE:LINE`) of each.

    Args:
        program: name of the program, for notes on renamed settings.
        path: the file.
        known: names of the command's settings.

    Raises:
        UserError: the file is unreadable, not a YAML mapping, or contains an unknown setting. The message names the
            file and the line.
    """
    content, lines = read_yaml(path)
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a settings file: it needs lines of the form NAME: VALUE")
    for name, line in lines.items():
        if RENAMED.get(name, name) not in known:
            raise UserError(f"{path}:{line}: there is no setting {name!r}{did_you_mean(name, known)}")
    for name in content:
        if RENAMED.get(name, name) != name and RENAMED[name] in content:
            raise UserError(f"{path}:{lines[name]}: {name} is now {RENAMED[name]}, which is set too; remove {name}")
    places = {RENAMED.get(name, name): f"{path}:{line}" for name, line in lines.items()}
    note(program, renamed_settings(content, places))
    return in_current_names(content), places
