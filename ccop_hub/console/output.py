"""What the programs write to standard output: tables for people, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 400
"""Characters: wide enough that no table of ours is folded in a pipe or a file."""


def table_console() -> Console:
    """A console that loses no number: a terminal folds wide tables, a pipe or file gets them at their full width."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


@contextlib.contextmanager
def reserved_stdout() -> Iterator[TextIO]:
    """Standard output, kept for one document: whatever is printed inside the block goes to standard error.

    This also holds for what other processes and libraries in other languages write meanwhile.
    """
    stdout: TextIO = sys.stdout
    stdout.flush()
    saved = None
    if sys.stdout is sys.__stdout__:
        with contextlib.suppress(OSError, ValueError):
            saved = os.dup(stdout.fileno())
            os.dup2(sys.stderr.fileno(), stdout.fileno())
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield stdout
    finally:
        if saved is not None:
            os.dup2(saved, stdout.fileno())
            os.close(saved)


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
