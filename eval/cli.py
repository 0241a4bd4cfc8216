"""Measure pre-trained networks: detection, segmentation, probes, and their comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ccop_hub.console import Command, run_program

from .doctor import DoctorSettings
from .settings import (
    CompareSettings,
    DetectionSettings,
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
    from .results.result import Result


def _segmentation(settings: SegmentationSettings) -> None:
    from .segmentation.run import run

    _announce(run(settings), settings)


def _linear(settings: LinearSettings) -> None:
    from .frozen.linear import run

    _announce(run(settings), settings)


def _knn(settings: KnnSettings) -> None:
    from .frozen.knn import run

    _announce(run(settings), settings)


def _voc_svm(settings: VocSvmSettings) -> None:
    from .frozen.voc_svm import run

    _announce(run(settings), settings)


def _regions(settings: RegionSettings) -> None:
    from .region_probe.run import run

    _announce(run(settings), settings)


def _visualize(settings: VisualizeSettings) -> None:
    from .visualize import run

    run(settings)


def _compare(settings: CompareSettings) -> None:
    from .results.compare import run

    run(settings)


def _detection(settings: DetectionSettings) -> None:
    from .detection.plan import SHEET_FILE
    from .detection.run import run
    from .results.announcement import announce

    result = run(settings)
    if result is not None:
        announce(result, settings.out, settings.out / SHEET_FILE)


def _install_detectron2(settings: InstallSettings) -> None:
    from .detection.install import install

    install(settings)


def _doctor(settings: DoctorSettings) -> int:
    from .doctor import run

    return run(settings)


def _announce(result: Result, settings: RunSettings) -> None:
    from lightning.fabric.utilities import rank_zero_only

    from .common.run_folder import PICTURES
    from .results.announcement import announce

    # Each process of a run on several devices comes here with the same result.
    if not getattr(rank_zero_only, "rank", 0):
        announce(result, settings.out, settings.out / PICTURES)


COMMANDS: list[Command] = [
    Command(
        name="segmentation",
        help="Semantic segmentation of Cityscapes or any folder of images and id PNGs.",
        settings=SegmentationSettings,
        run=_segmentation,
    ),
    Command(name="linear", help="Linear classifiers on frozen features, paired.", settings=LinearSettings, run=_linear),
    Command(name="knn", help="Nearest neighbours on frozen features, paired.", settings=KnnSettings, run=_knn),
    Command(name="voc-svm", help="VOC2007 classification by linear SVMs.", settings=VocSvmSettings, run=_voc_svm),
    Command(
        name="regions",
        help="Classification of ground-truth boxes from frozen features, paired.",
        settings=RegionSettings,
        run=_regions,
    ),
    Command(
        name="visualize",
        help="Feature maps as colours and what resembles a chosen box, side by side for several weights.",
        settings=VisualizeSettings,
        run=_visualize,
        positional=("images",),
    ),
    Command(
        name="compare",
        help="Results as one table a group of comparable ones: terminal, Markdown, CSV, HTML.",
        settings=CompareSettings,
        run=_compare,
        positional=("results",),
    ),
    Command(
        name="detection",
        help="Mask R-CNN (Detectron2) trained from W on a COCO-format data set: box and mask AP.",
        settings=DetectionSettings,
        run=_detection,
    ),
    Command(
        name="install-detectron2",
        help="Bring Detectron2 into this environment: digest pinned, no compiler.",
        settings=InstallSettings,
        run=_install_detectron2,
    ),
    Command(
        name="doctor",
        help="What works on this machine, and how to fix what does not.",
        settings=DoctorSettings,
        run=_doctor,
    ),
]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns the exit code (2 for wrong input)."""
    return run_program("ccop-eval", __doc__ or "", COMMANDS, argv)
