"""The console program `ccop-pretrain`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ccop_hub.console import Command, run_program

from .settings import InspectSettings, ProposalSettings, RunSettings, SceneSettings

NAMED_SETTINGS = Path(__file__).parent / "named_settings"
"""One YAML file per `--setting`."""


def _scenes(settings: SceneSettings) -> None:
    from .scenes.run import report, run

    report(run(settings))


def _proposals(settings: ProposalSettings) -> int:
    from .proposals.report import report
    from .proposals.run import run

    return report(run(settings))


def _run(settings: RunSettings) -> int:
    from .training.run import run

    return run(settings)


def _inspect(settings: InspectSettings) -> None:
    from ccop_hub.stopping import stoppable

    from .look.inspection import run

    with stoppable():
        run(settings)


COMMANDS: list[Command] = [
    Command("scenes", "draw a small scene set in COCO's layout, with masks and labels", SceneSettings, _scenes),
    Command("proposals", "find object proposals in images", ProposalSettings, _proposals, positional=("images",)),
    Command("run", "pre-train a network on a folder of images", RunSettings, _run, named_settings=NAMED_SETTINGS),
    Command("inspect", "draw what a run would see, and count it", InspectSettings, _inspect),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code (2 for wrong input)."""
    return run_program("ccop-pretrain", __doc__ or "", COMMANDS, argv)
