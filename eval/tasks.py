"""The tasks of `ccop-eval`, called by its commands and Python functions.

Each task imports its dependencies when called, to keep `--help` and `import ccop_eval` fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def detection(settings: DetectionSettings) -> Result | None:
    """Train and score a detector; returns None on all machines except the first."""
    from .detection.run import run

    return run(settings)


def segmentation(settings: SegmentationSettings) -> Result:
    """Train and score a segmentation head."""
    from .segmentation.run import run

    return run(settings)


def linear(settings: LinearSettings) -> Result:
    """Train and score linear classifiers."""
    from .frozen.linear import run

    return run(settings)


def knn(settings: KnnSettings) -> Result:
    """Score a kNN classifier."""
    from .frozen.knn import run

    return run(settings)


def voc_svm(settings: VocSvmSettings) -> Result:
    """Fit and score linear SVMs."""
    from .frozen.voc_svm import run

    return run(settings)


def regions(settings: RegionSettings) -> Result:
    """Classify ground-truth boxes."""
    from .region_probe.run import run

    return run(settings)


def visualize(settings: VisualizeSettings) -> list[Path]:
    """Draw feature maps and return the picture files."""
    from .feature_maps import run

    return run(settings)


def predict(settings: PredictSettings) -> Prediction:
    """Predict for images with the network of a run."""
    from .prediction.run import run

    return run(settings)


def compare(settings: CompareSettings) -> Comparison:
    """Group results and write the requested files."""
    from .results.compare import run

    return run(settings)


def leaderboard(settings: LeaderboardSettings) -> Leaderboard:
    """Rank the results below a folder."""
    from .results.record_book import run

    return run(settings)


def demo(settings: DemoSettings) -> Demonstration:
    """Compare a trained network with an untrained one on synthetic images."""
    from .demonstration.run import run

    return run(settings)


def doctor(settings: DoctorSettings) -> list[Finding]:
    """Check this machine."""
    from .doctor import run

    return run(settings)


def install_detectron2(settings: InstallSettings) -> None:
    """Install Detectron2 into this environment."""
    from .detection.install import install

    install(settings)
