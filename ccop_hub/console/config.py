"""YAML files of settings: `--config FILE`, and the named ones of `--setting NAME`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from ..errors import UserError, one_line
from ..saved_settings import RENAMED, in_current_names
from ..validation import did_you_mean
from .renamed import note, renamed_settings


def read_config(program: str, path: Path, known: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Settings of a YAML file, under today's names, and where each of them stands (`FILE:LINE`).

    Args:
        program: its name, for the note on settings that stand there under a former name.
        path: the file.
        known: names of the command's settings.

    Raises:
        UserError: not readable, not YAML, not a mapping, or a key that is no setting; names the file and the line.
    """
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
        content = yaml.SafeLoader("").construct_document(node) if node is not None else {}
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UserError(f"{where} is not YAML: {one_line(error.problem or error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not YAML: {one_line(error)}") from None
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path} is not a file of settings: give lines of the form NAME: VALUE")
    lines = {} if node is None else {str(key.value): key.start_mark.line + 1 for key, _ in node.value}
    for name, line in lines.items():
        if RENAMED.get(name, name) not in known:
            raise UserError(f"{path}:{line}: there is no setting {name!r}{did_you_mean(name, known)}")
    places = {RENAMED.get(name, name): f"{path}:{line}" for name, line in lines.items()}
    note(program, renamed_settings(content, places))
    return in_current_names(content), places
