"""Measure pre-trained networks: detection, segmentation, probes, and their comparison."""

from __future__ import annotations

from collections.abc import Sequence

from ccop_hub.console import Command, run_program

from .settings import CompareSettings


def _compare(settings: CompareSettings) -> None:
    from .compare import run

    run(settings)


COMMANDS: list[Command] = [
    Command(
        name="compare",
        help="Results as one table a group of comparable ones: terminal, Markdown, CSV.",
        settings=CompareSettings,
        run=_compare,
        positional=("results",),
    ),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code (2 for wrong input)."""
    return run_program("ccop-eval", __doc__ or "", COMMANDS, argv)
