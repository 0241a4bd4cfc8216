"""Evaluate pre-trained networks: detection, segmentation, probes of frozen features, and their comparison."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ccop_hub.console import Command, run_program

from .settings import (
    CompareSettings,
    DetectionSettings,
    DoctorSettings,
    InstallSettings,
    KnnSettings,
    LinearSettings,
    RegionSettings,
    RunSettings,
    SegmentationSettings,
    VisualizeSettings,
    VocSvmSettings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from .doctor import Finding
    from .results.comparison import Group
    from .results.result import Result


def _detection(settings: DetectionSettings) -> Result | None:
    from .detection.run import run

    return run(settings)


def _segmentation(settings: SegmentationSettings) -> Result:
    from .segmentation.run import run

    return run(settings)


def _linear(settings: LinearSettings) -> Result:
    from .frozen.linear import run

    return run(settings)


def _knn(settings: KnnSettings) -> Result:
    from .frozen.knn import run

    return run(settings)


def _voc_svm(settings: VocSvmSettings) -> Result:
    from .frozen.voc_svm import run

    return run(settings)


def _regions(settings: RegionSettings) -> Result:
    from .region_probe.run import run

    return run(settings)


def _visualize(settings: VisualizeSettings) -> list[Path]:
    from .visualize import run

    return run(settings)


def _compare(settings: CompareSettings) -> list[Group]:
    from .results.compare import run

    return run(settings)


def _doctor(settings: DoctorSettings) -> list[Finding]:
    from .doctor import run

    return run(settings)


def _install_detectron2(settings: InstallSettings) -> None:
    from .detection.install import install

    install(settings)


def _show_result(result: Result | None, settings: RunSettings) -> None:
    if result is None or not _is_first():
        return
    from .results.announcement import announce

    announce(result, settings.out)


def _result_document(result: Result | None, _: RunSettings) -> dict[str, Any] | None:
    return None if result is None or not _is_first() else result.document()


def _is_first() -> bool:
    """Whether this is the process that prints: each of a run on several devices comes here with the same result."""
    from lightning.fabric.utilities import rank_zero_only

    return not getattr(rank_zero_only, "rank", 0)


def _show_pictures(written: list[Path], _: VisualizeSettings) -> None:
    for path in written:
        print(f"wrote {path}")


def _show_groups(groups: list[Group], settings: CompareSettings) -> None:
    from .results.compare import show

    show(groups, settings)


def _groups_document(groups: list[Group], settings: CompareSettings) -> list[dict[str, Any]]:
    from .results.tables import document

    return document(groups, settings.metrics)


def _show_findings(findings: list[Finding], settings: DoctorSettings) -> int:
    from .doctor import show

    return show(findings, settings)


def _findings_document(findings: list[Finding], _: DoctorSettings) -> list[dict[str, Any]]:
    return [dataclasses.asdict(finding) for finding in findings]


def _findings_code(findings: list[Finding]) -> int:
    from .doctor import exit_code

    return exit_code(findings)


_RUN = ("backbone", "seed", "resume", "overwrite", "accelerator", "devices")
"""Settings of every run that its `--help` shows."""

_PRINTED: dict[str, Any] = {"show": _show_result, "document": _result_document}

COMMANDS: list[Command] = [
    Command(
        "detection",
        "Mask R-CNN (Detectron2) trained on COCO-format data: box and mask AP.",
        DetectionSettings,
        _detection,
        common=(*_RUN, "protocol", "against", "few_images", "iterations", "batch_size"),
        **_PRINTED,
    ),
    Command(
        "segmentation",
        "Semantic segmentation of Cityscapes or of any folder of images and label PNGs.",
        SegmentationSettings,
        _segmentation,
        common=(*_RUN, "protocol", "frozen", "iterations", "batch_size"),
        **_PRINTED,
    ),
    Command(
        "linear",
        "Linear classifiers on frozen features.",
        LinearSettings,
        _linear,
        common=(*_RUN, "protocol", "against", "epochs", "batch_size", "image_size"),
        **_PRINTED,
    ),
    Command(
        "knn",
        "Nearest neighbours of frozen features.",
        KnnSettings,
        _knn,
        common=(*_RUN, "against", "neighbours", "image_size"),
        **_PRINTED,
    ),
    Command(
        "voc-svm",
        "VOC2007 classification by linear SVMs on frozen features.",
        VocSvmSettings,
        _voc_svm,
        common=(*_RUN, "against", "costs"),
        **_PRINTED,
    ),
    Command(
        "regions",
        "Classification of ground-truth boxes from frozen features.",
        RegionSettings,
        _regions,
        common=(*_RUN, "against", "features", "epochs"),
        **_PRINTED,
    ),
    Command(
        "visualize",
        "Feature maps as colours, and what resembles a chosen box, side by side for several weights.",
        VisualizeSettings,
        _visualize,
        ("images",),
        show=_show_pictures,
    ),
    Command(
        "compare",
        "Results side by side: in the terminal, as Markdown, CSV or an HTML page.",
        CompareSettings,
        _compare,
        ("results",),
        show=_show_groups,
        document=_groups_document,
    ),
    Command(
        "doctor",
        "What works on this machine, and the command that fixes what does not.",
        DoctorSettings,
        _doctor,
        show=_show_findings,
        document=_findings_document,
        code=_findings_code,
    ),
    Command(
        "install-detectron2",
        "Install Detectron2 into this environment: digest pinned, no compiler needed.",
        InstallSettings,
        _install_detectron2,
    ),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code (2 for wrong input)."""
    return run_program("ccop-eval", __doc__ or "", COMMANDS, argv)
