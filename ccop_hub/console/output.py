"""Standard output of the programs: tables for people, JSON for programs."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from ..markup import visible
from ..redaction import redact

if TYPE_CHECKING:
    from rich.console import Console

_PIPE_WIDTH = 400
"""Width in characters for pipes and files, enough for every table to fit without wrapping."""


def table_console() -> Console:
    """Return a console that never truncates: wide tables wrap in a terminal and keep their full width elsewhere."""
    from rich.console import Console

    console = Console()
    return console if console.is_terminal else Console(width=_PIPE_WIDTH)


@contextlib.contextmanager
def reserved_stdout() -> Iterator[TextIO]:
    """Reserve standard output for one document; everything else printed inside the block goes to standard error.

    Redirects at the level of file descriptors, so that child processes and native libraries are covered too.
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


def next_step(*words: object, note: str = "") -> None:
    """Print the last line of a finished command: the command to run next.

    Args:
        words: the command's words, quoted for the shell if necessary; secrets of addresses are removed.
        note: a further remark, shown as a shell comment.
    """
    command = shlex.join(redact(visible(word)) for word in words)
    print(f"next: {command}" + (f"   # {note}" if note else ""))


def print_json(document: Any) -> None:
    """Print one JSON document."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))
