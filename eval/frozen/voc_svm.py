"""`ccop-eval voc-svm`: VOC2007 image classification with one linear SVM per class on frozen res5."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch.nn.functional as F
from joblib import Parallel, delayed
from joblib.externals.loky import get_reusable_executor
from PIL import Image
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC
from torch import Tensor

from ccop_hub.errors import UserError
from ccop_hub.frozen_network import FrozenNetwork
from ccop_hub.stopping import ignore_stop_signals

from ..common import pictures
from ..common.images import read_rgb, test_transform
from ..protocols import VocSvmProtocol, apply_settings
from ..results.intervals import Statistic
from ..results.result import Result, defined
from ..settings import VocSvmSettings
from .driver import Measurement, Probe, ProbeData, Run, run_probe
from .features import image_features
from .voc_lists import VocSplit, read_splits

POOL = 6
"""Kernel size of the stride-1 average pooling from 7 x 7 to 2 x 2 cells (Goyal et al. 2019, appendix)."""

_FOLDS = 3
_EPSILON = 1e-5
"""Added to a feature's norm before dividing by it (as in the benchmark's code)."""


def run(settings: VocSvmSettings) -> Result:
    """Run the SVM probe and write `result.json` and pictures to `settings.out`."""
    return run_probe(VocSvmProbe(settings))


class VocSvmProbe(Probe[VocSvmSettings]):
    """Fits one SVM per class on trainval, with its cost chosen by cross-validation, and scores it on test."""

    task = "voc-svm"
    packages = ("scikit-learn",)
    resamples = 200
    """Fewer than for a mean, since average precision has to sort the scores of every resample."""

    def read(self) -> ProbeData:
        """Read the image lists of both splits."""
        self.protocol, self.protocol_id = apply_settings(VocSvmProtocol(), self.settings)
        root, self.trainval, self.test = read_splits(self.settings.data)
        require_folds(self.trainval.labels)
        lists = (root / "ImageSets" / "Main").glob("*_*.txt")
        files = [*self.trainval.paths, *self.test.paths, *lists]
        return ProbeData(name=root.name, root=root, files=files, images=len(self.test.paths))

    def measure(self, run: Run[VocSvmSettings]) -> Measurement:
        """Score every class on test, by side."""
        labels = self.test.labels
        costs: dict[str, dict[str, float]] = {}
        scores: dict[str, dict[str, np.ndarray]] = {}
        for side in run.networks:
            train, test = (
                self._unit_features(run, side, split, name)
                for split, name in ((self.trainval, "trainval"), (self.test, "test"))
            )
            scores[side], costs[side] = svm_scores(
                train,
                self.trainval.labels,
                test,
                self.protocol.costs,
                self.settings.seed,
                max(1, self.settings.workers),
            )
        per_class = {
            side: {"AP": defined({name: average_precision(labels[name], values[name]) for name in labels})}
            for side, values in scores.items()
        }
        return Measurement(
            statistics={side: _map_statistic(labels, values) for side, values in scores.items()},
            per_class=per_class,
            pictures={"highest-scored": lambda: self._draw(run, scores)},
            details={"costs": costs},
        )

    def _unit_features(self, run: Run[VocSvmSettings], side: str, split: VocSplit, name: str) -> np.ndarray:
        """(N, D) float32 L2-normalised features of a split's images."""
        batch = max(1, self.settings.batch_size // run.fabric.world_size)
        size = self.protocol.image_size
        compute = image_features(
            run.fabric, split.paths, test_transform(size), _pooling(run.networks[side]), batch, self.settings.workers
        )
        raw = run.features(
            side,
            split.paths,
            [1] * len(split.paths),
            compute,
            self.settings.cache,
            split=name,
            transform=f"test {size}",
            features=f"res5 average {POOL} stride 1",
        )
        unit: np.ndarray = raw / (np.linalg.norm(raw, axis=1, keepdims=True) + _EPSILON)
        return unit

    def _draw(self, run: Run[VocSvmSettings], scores: Mapping[str, Mapping[str, np.ndarray]]) -> Image.Image:
        """Draw the highest-scoring test images of each class, one row per class and side."""
        rows, titles = [], []
        meaning = {1: "shown", -1: "not shown", 0: "difficult"}
        for name, labels in self.test.labels.items():
            for side, values in scores.items():
                best = np.argsort(-values[name])[:8].tolist()
                rows.append([(read_rgb(self.test.paths[index]), meaning[int(labels[index])]) for index in best])
                titles.append(f"{name} ({run.title(side)})")
        return pictures.sheet(rows, (96, 96), titles)


def require_folds(labels: Mapping[str, np.ndarray]) -> None:
    """Raise `UserError` if a class has fewer positive or negative images than cross-validation has folds."""
    for name, values in labels.items():
        least = int(min((values == 1).sum(), (values == -1).sum()))
        if least < _FOLDS:
            raise UserError(
                f"class {name} has {least} training images that show it or do not; the {_FOLDS} folds of "
                f"cross-validation need {_FOLDS} of each: add images to trainval"
            )


def svm_scores(
    train: np.ndarray,
    labels: Mapping[str, np.ndarray],
    test: np.ndarray,
    costs: tuple[float, ...],
    seed: int,
    workers: int = 1,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Fit one SVM per class; returns each class's decision values on the test images and its chosen cost.

    Args:
        train: (M, D) L2-normalised features.
        labels: class -> (M,) labels: 1, -1 or 0 (ignored).
        test: (N, D) L2-normalised features.
        costs: candidate values of C; the best by mean average precision over 3 folds is used.
        seed: seed of the solver.
        workers: number of processes that fit SVMs; 0 fits them in the current one.
    """
    # Signals reach the whole process group, but this process decides what they mean.
    fit = Parallel(n_jobs=max(1, workers), backend="loky", initializer=ignore_stop_signals)
    try:
        fitted = fit(
            delayed(_fit_class)(train[values != 0], values[values != 0], test, costs, seed)
            for values in labels.values()
        )
    finally:
        if workers > 1:
            get_reusable_executor().shutdown(wait=True, kill_workers=True)
    return (
        {name: scores for name, (scores, _) in zip(labels, fitted, strict=True)},
        {name: cost for name, (_, cost) in zip(labels, fitted, strict=True)},
    )


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision in percent, as the area under the precision-recall steps; difficult images (0) are ignored.

    NaN if no image shows the class.
    """
    counted = labels != 0
    if not (labels == 1).any():
        return float("nan")
    return float(100 * average_precision_score(labels[counted] == 1, scores[counted]))


def _fit_class(
    features: np.ndarray, labels: np.ndarray, test: np.ndarray, costs: tuple[float, ...], seed: int
) -> tuple[np.ndarray, float]:
    def svm(cost: float) -> LinearSVC:
        return LinearSVC(
            C=cost,
            class_weight={1: 2, -1: 1},
            loss="squared_hinge",
            penalty="l2",
            dual=True,
            tol=1e-4,
            max_iter=2000,
            random_state=seed,
        )

    folds = [
        cross_val_score(svm(cost), features, labels, cv=_FOLDS, scoring="average_precision").mean() for cost in costs
    ]
    best = costs[int(np.argmax(folds))]
    scores: np.ndarray = svm(best).fit(features, labels).decision_function(test)
    return scores, best


def _pooling(network: FrozenNetwork) -> Callable[[Tensor], Tensor]:
    def pooled(images: Tensor) -> Tensor:
        res5 = network.stages(images)["res5"].float()
        return F.avg_pool2d(res5, min(POOL, *res5.shape[-2:]), stride=1).flatten(1)

    return pooled


def _map_statistic(labels: Mapping[str, np.ndarray], scores: Mapping[str, np.ndarray]) -> Statistic:
    def statistic(counts: np.ndarray) -> dict[str, float]:
        drawn = np.repeat(np.arange(len(counts)), counts)
        values = [average_precision(labels[name][drawn], scores[name][drawn]) for name in labels]
        return {"mAP": float(np.nanmean(values))}

    return statistic
