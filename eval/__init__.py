"""Evaluate pre-trained backbones: detection, segmentation and frozen-feature probes; compare their results.

Each function takes the same settings as its command and returns a typed result:

    >>> import ccop_eval
    >>> result = ccop_eval.knn("RUN", "data", "results/knn", neighbours=[20])
    >>> result.metrics["k20/top1"]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import compare, demo, detect, knn, leaderboard, linear, predict, regions, segment, visualize, voc_svm
    from .results.compare import Comparison
    from .results.result import Result

__all__ = [
    "Comparison",
    "Result",
    "compare",
    "demo",
    "detect",
    "knn",
    "leaderboard",
    "linear",
    "predict",
    "regions",
    "segment",
    "visualize",
    "voc_svm",
]


def __getattr__(name: str) -> Any:
    # The CLI imports this package to show its help, so heavy modules load only on first use.
    if name == "Comparison":
        from .results.compare import Comparison

        return Comparison
    if name == "Result":
        from .results.result import Result

        return Result
    if name in __all__:
        from . import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
