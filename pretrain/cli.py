"""The console program `ccop-pretrain`."""

from __future__ import annotations

from collections.abc import Sequence

from ccop_hub.console import Command, run_program

from .data_settings import ProposalSettings, SceneSettings


def _scenes(settings: SceneSettings) -> None:
    from .scenes import run

    run(settings)


def _proposals(settings: ProposalSettings) -> None:
    from .proposals import run

    run(settings)


COMMANDS: list[Command] = [
    Command("scenes", "draw a small scene set in COCO's layout, with masks and labels", SceneSettings, _scenes),
    Command(
        "proposals", "find object proposals in a folder of images", ProposalSettings, _proposals, positional=("images",)
    ),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code (2 for wrong input)."""
    return run_program("ccop-pretrain", __doc__ or "", COMMANDS, argv)
