"""Evaluate pre-trained networks: detection, segmentation and frozen-feature probes; compare their results."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ccop_hub.console import Command, next_step, run_program
from ccop_hub.markup import visible

from . import tasks
from .settings import (
    CompareSettings,
    DemoSettings,
    DetectionSettings,
    DoctorSettings,
    InstallSettings,
    KnnSettings,
    LeaderboardSettings,
    LinearSettings,
    PredictSettings,
    RegionSettings,
    RunSettings,
    SegmentationSettings,
    VisualizeSettings,
    VocSvmSettings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from .demonstration.run import Demonstration
    from .doctor import Finding
    from .prediction.run import Prediction
    from .results.compare import Comparison
    from .results.record_book import Leaderboard
    from .results.result import Result


def _show_result(result: Result | None, settings: RunSettings) -> None:
    if result is None or not _is_first():
        return
    from .results.announcement import announce

    announce(result, settings.out)


def _result_document(result: Result | None, _: RunSettings) -> dict[str, Any] | None:
    return None if result is None or not _is_first() else result.document()


def _is_first() -> bool:
    """Whether this process prints the result; every process of a multi-device run returns the same one."""
    from lightning.fabric.utilities import rank_zero_only

    return not getattr(rank_zero_only, "rank", 0)


def _show_pictures(written: list[Path], _: VisualizeSettings) -> None:
    for path in written:
        print(visible(f"wrote {path}"))
    next_step("python", "-m", "webbrowser", written[0])


def _show_prediction(found: Prediction, _: PredictSettings) -> None:
    from .prediction.report import report

    report(found)


def _prediction_document(found: Prediction, _: PredictSettings) -> dict[str, Any]:
    return found.document()


def _show_comparison(comparison: Comparison, settings: CompareSettings) -> None:
    from .results.compare import show

    show(comparison, settings)


def _comparison_document(comparison: Comparison, _: CompareSettings) -> list[dict[str, Any]]:
    return comparison.document()


def _show_leaderboard(board: Leaderboard, settings: LeaderboardSettings) -> int:
    if settings.check:
        state = "differs from" if board.stale else "agrees with"
        print(visible(f"{board.path} {state} the results in {settings.records}"))
        check = () if board.stale else ("--check",)
        next_step("ccop-eval", "leaderboard", settings.records, settings.out, *check)
        return int(board.stale)
    rows = sum(len(group.rows) for group in board.groups)
    print(visible(f"wrote {board.path}: {rows} rows in {len(board.groups)} tables, {len(board.plots)} plots"))
    next_step("ccop-eval", "leaderboard", settings.records, settings.out, "--check", note="1 if out of date, for CI")
    return 0


def _leaderboard_document(board: Leaderboard, _: LeaderboardSettings) -> list[dict[str, Any]]:
    return board.document()


def _show_demonstration(found: Demonstration, _: DemoSettings) -> None:
    from .demonstration.report import report

    report(found)


def _demonstration_document(found: Demonstration, _: DemoSettings) -> dict[str, Any]:
    return found.document()


def _show_findings(findings: list[Finding], settings: DoctorSettings) -> int:
    from .doctor import show

    return show(findings, settings)


def _findings_document(findings: list[Finding], _: DoctorSettings) -> list[dict[str, Any]]:
    return [dataclasses.asdict(finding) for finding in findings]


def _findings_code(findings: list[Finding]) -> int:
    from .doctor import exit_code

    return exit_code(findings)


_RUN = ("backbone", "seed", "resume", "overwrite", "accelerator", "devices")
"""Common settings shown by every evaluation's `--help`."""

_PRINTED: dict[str, Any] = {"show": _show_result, "document": _result_document}

COMMANDS: list[Command] = [
    Command(
        "demo",
        "Compare a trained network with an untrained one, in half a minute and without data.",
        DemoSettings,
        tasks.demo,
        show=_show_demonstration,
        document=_demonstration_document,
        takes_long=True,
    ),
    Command(
        "detection",
        "Train Mask R-CNN (Detectron2) on COCO, VOC or Cityscapes data: box and mask AP.",
        DetectionSettings,
        tasks.detection,
        common=(*_RUN, "protocol", "against", "few_images", "iterations", "batch_size"),
        **_PRINTED,
        takes_long=True,
    ),
    Command(
        "segmentation",
        "Train semantic segmentation on Cityscapes, or any folder of images and label PNGs.",
        SegmentationSettings,
        tasks.segmentation,
        common=(*_RUN, "protocol", "frozen", "iterations", "batch_size"),
        **_PRINTED,
        takes_long=True,
    ),
    Command(
        "linear",
        "Train linear classifiers on frozen features.",
        LinearSettings,
        tasks.linear,
        common=(*_RUN, "protocol", "against", "epochs", "batch_size", "image_size"),
        **_PRINTED,
        takes_long=True,
    ),
    Command(
        "knn",
        "Classify by nearest neighbours of frozen features.",
        KnnSettings,
        tasks.knn,
        common=(*_RUN, "against", "neighbours", "image_size"),
        **_PRINTED,
        takes_long=True,
    ),
    Command(
        "voc-svm",
        "Classify VOC2007 by linear SVMs on frozen features.",
        VocSvmSettings,
        tasks.voc_svm,
        common=(*_RUN, "against", "costs"),
        **_PRINTED,
        takes_long=True,
    ),
    Command(
        "regions",
        "Classify ground-truth boxes by frozen features.",
        RegionSettings,
        tasks.regions,
        common=(*_RUN, "against", "features", "neighbours"),
        **_PRINTED,
        takes_long=True,
    ),
    Command(
        "visualize",
        "Draw feature maps as colours, and similarity to a chosen box, for several weights.",
        VisualizeSettings,
        tasks.visualize,
        ("images",),
        show=_show_pictures,
        takes_long=True,
    ),
    Command(
        "predict",
        "Run the detector or segmenter of a finished run on any images.",
        PredictSettings,
        tasks.predict,
        ("run",),
        show=_show_prediction,
        document=_prediction_document,
        takes_long=True,
    ),
    Command(
        "compare",
        "Compare results: in the terminal, as Markdown, CSV or an HTML page.",
        CompareSettings,
        tasks.compare,
        ("results",),
        show=_show_comparison,
        document=_comparison_document,
    ),
    Command(
        "leaderboard",
        "Rank all results in a folder, on a page with tables and plots.",
        LeaderboardSettings,
        tasks.leaderboard,
        ("records", "out"),
        show=_show_leaderboard,
        document=_leaderboard_document,
        code=lambda board: int(board.stale),
    ),
    Command(
        "doctor",
        "Check what works on this machine, and how to fix what does not.",
        DoctorSettings,
        tasks.doctor,
        show=_show_findings,
        document=_findings_document,
        code=_findings_code,
    ),
    Command(
        "install-detectron2",
        "Install Detectron2 into this environment (pinned digest, no compiler needed).",
        InstallSettings,
        tasks.install_detectron2,
    ),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code (2 for invalid input)."""
    return run_program("ccop-eval", __doc__ or "", COMMANDS, argv)
