"""The public Python functions of `ccop_eval`: one per task, with the task's settings as arguments."""

from __future__ import annotations

from ccop_hub.front import front

from . import tasks
from .settings import (
    CompareSettings,
    DemoSettings,
    DetectionSettings,
    KnnSettings,
    LeaderboardSettings,
    LinearSettings,
    PredictSettings,
    RegionSettings,
    SegmentationSettings,
    VisualizeSettings,
    VocSvmSettings,
)

_RESULT = "The `Result`, as in `OUT/result.json`; a notebook shows its metrics and pictures."

detect = front(
    "detect",
    DetectionSettings,
    tasks.detection,
    f"{_RESULT} None on machines other than the first.",
)
segment = front("segment", SegmentationSettings, tasks.segmentation, _RESULT)
linear = front("linear", LinearSettings, tasks.linear, _RESULT)
knn = front("knn", KnnSettings, tasks.knn, _RESULT)
regions = front("regions", RegionSettings, tasks.regions, _RESULT)
voc_svm = front("voc_svm", VocSvmSettings, tasks.voc_svm, _RESULT)
demo = front("demo", DemoSettings, tasks.demo, "Both accuracies and chance, as a `Demonstration`.")
compare = front(
    "compare",
    CompareSettings,
    tasks.compare,
    "The `Comparison`: its groups, Markdown and HTML; a notebook shows it as a page.",
)
leaderboard = front(
    "leaderboard", LeaderboardSettings, tasks.leaderboard, "The `Leaderboard`: its groups, the page and the plots."
)
visualize = front("visualize", VisualizeSettings, tasks.visualize, "The pictures that were written, as paths.")
predict = front("predict", PredictSettings, tasks.predict, "What was found and written, as a `Prediction`.")
