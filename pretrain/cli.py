"""Pre-train networks on unlabelled images: synthetic data, object proposals, inspection, training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ccop_hub.console import Command, next_step, run_program

from . import tasks
from .settings import InspectSettings, PlanSettings, ProposalSettings, RunSettings, SceneSettings

if TYPE_CHECKING:
    from .look.inspection import Inspection
    from .planning.run import Plan
    from .proposals.check import CheckReport
    from .proposals.run import ProposalsResult
    from .scenes.run import ScenesResult
    from .training.run import RunResult

NAMED_SETTINGS = Path(__file__).parent / "named_settings"
"""Folder with one YAML file per `--setting`."""


def _show_scenes(result: ScenesResult, _: SceneSettings) -> None:
    from .scenes.run import report

    report(result)


def _show_proposals(result: ProposalsResult | CheckReport, _: ProposalSettings) -> int:
    from .proposals.report import report

    return report(result)


def _proposals_document(result: ProposalsResult | CheckReport, settings: ProposalSettings) -> dict[str, Any]:
    from .proposals.check import CheckReport

    if isinstance(result, CheckReport):
        return dict(result.measures)
    return {
        "folder": str(result.folder),
        "images": result.proposed,
        "boxes": result.boxes,
        "images without a box": result.empty,
        "left out": len(result.skipped),
    }


def _proposals_code(result: ProposalsResult | CheckReport) -> int:
    from .proposals.check import CheckReport

    return 1 if isinstance(result, CheckReport) and result.missing else 0


def _show_inspection(inspection: Inspection, settings: InspectSettings) -> None:
    from .look.inspection import show

    show(inspection, settings)


def _inspection_document(inspection: Inspection, _: InspectSettings) -> dict[str, Any]:
    return {"measures": dict(inspection.measures), "sheets": [str(path) for path in inspection.sheets]}


def _show_plan(plan: Plan, settings: PlanSettings) -> None:
    from .planning.run import report

    report(plan, settings)


def _plan_document(plan: Plan, _: PlanSettings) -> dict[str, Any]:
    return plan.document()


def _show_run(result: RunResult, _: RunSettings) -> int:
    if result.exported is not None and _is_first():
        next_step("ccop-hub", "info", result.out)
    return result.exit_code


def _is_first() -> bool:
    """Whether this process prints what is next; every process of a multi-device run returns the same result."""
    from lightning.fabric.utilities import rank_zero_only

    return not getattr(rank_zero_only, "rank", 0)


COMMANDS: list[Command] = [
    Command(
        "scenes",
        "Draw a synthetic data set in COCO format, with masks and labels.",
        SceneSettings,
        tasks.scenes,
        show=_show_scenes,
        takes_long=True,
    ),
    Command(
        "proposals",
        "Find object proposals by selective search.",
        ProposalSettings,
        tasks.proposals,
        ("images",),
        common=("workers", "mode", "max_side", "keep", "seed", "resume", "overwrite", "check"),
        show=_show_proposals,
        document=_proposals_document,
        code=_proposals_code,
        takes_long=True,
    ),
    Command(
        "inspect",
        "Preview the views and boxes that a run would train on.",
        InspectSettings,
        tasks.inspect,
        common=("count", "draws", "seed", "image_size", "crop_area", "jitters"),
        show=_show_inspection,
        document=_inspection_document,
        takes_long=True,
    ),
    Command(
        "plan",
        "Estimate time, memory, disk space and energy before starting.",
        PlanSettings,
        tasks.plan,
        common=(
            *("images", "image_size", "backbone", "devices", "epochs", "steps", "batch_size", "objective", "precision"),
            *("workers", "sample", "eval_images", "rates"),
        ),
        show=_show_plan,
        document=_plan_document,
    ),
    Command(
        "run",
        "Pre-train a network on unlabelled images.",
        RunSettings,
        tasks.pretrain,
        common=(
            *("proposals", "objective", "backbone", "init", "epochs", "steps", "batch_size", "lr", "image_size"),
            *("seed", "accelerator", "devices", "precision", "workers", "resume", "overwrite"),
        ),
        named_settings=NAMED_SETTINGS,
        show=_show_run,
        takes_long=True,
    ),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code (2 for invalid input)."""
    return run_program("ccop-pretrain", __doc__ or "", COMMANDS, argv)
