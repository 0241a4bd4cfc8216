"""The console program `ccop-eval`."""

from __future__ import annotations

from collections.abc import Sequence

from ccop_hub.console import Command, run_program

COMMANDS: list[Command] = []


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code (2 for wrong input)."""
    return run_program("ccop-eval", __doc__ or "", COMMANDS, argv)
