"""The console program `ccop-hub`."""

from __future__ import annotations

from collections.abc import Sequence

from .console import Command, run_program

COMMANDS: list[Command] = []


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code (2 for wrong input)."""
    return run_program("ccop-hub", __doc__ or "", COMMANDS, argv)
