"""`ccop-eval voc-svm`: VOC2007 image classification by a linear SVM a class on frozen res5."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from joblib import Parallel, delayed
from lightning.fabric import Fabric
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_score
from sklearn.svm import LinearSVC
from torch import Tensor

from ccop_hub.errors import UserError
from ccop_hub.files import files_digest

from ..common import pictures
from ..common.compute import launch
from ..common.images import read_rgb, test_transform
from ..common.run_folder import RunFolder
from ..protocols import VocSvmProtocol, apply_settings
from ..results.intervals import Statistic, bootstrap
from ..results.result import DataIdentity, Metrics
from ..settings import VocSvmSettings
from .features import cached_features, image_features
from .network import FrozenNetwork
from .paired import BASELINE, OWN, load_sides, resolve_sides, result_fields

POOL = 6
"""Side of the average pooling, stride 1, that leaves 2 x 2 cells of a 7 x 7 map (Goyal et al. 2019, appendix)."""

RESAMPLES = 200
"""An average precision sorts every resample, so these are fewer than a mean would get."""

_FOLDS = 3
_EPSILON = 1e-5
"""Added to a feature's norm before division (as the benchmark's code does)."""


@dataclass(frozen=True)
class VocSplit:
    """One split of VOC2007 classification.

    Attributes:
        paths: image files.
        labels: class name -> (N,) int8: 1 present, -1 absent, 0 difficult (ignored).
    """

    paths: list[Path]
    labels: dict[str, np.ndarray]

    @classmethod
    def read(cls, root: Path, split: str) -> VocSplit:
        """Read `ImageSets/Main/CLASS_SPLIT.txt` of a `VOC2007` folder.

        Raises:
            UserError: not VOC's layout, or its lists disagree.
        """
        lists = sorted((root / "ImageSets" / "Main").glob(f"*_{split}.txt"))
        if not lists:
            raise UserError(f"{root} is not VOC2007: no ImageSets/Main/CLASS_{split}.txt; give the VOC2007 folder")
        labels, names = {}, None
        for file in lists:
            entries = [line.split() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
            if any(len(entry) != 2 or entry[1] not in {"1", "-1", "0"} for entry in entries):
                raise UserError(f"{file} is not a VOC class list: every line is an image id and 1, -1 or 0")
            listed = [entry[0] for entry in entries]
            if names is not None and listed != names:
                raise UserError(f"{file} lists other images than {lists[0].name}: restore the original lists")
            names = listed
            labels[file.name.removesuffix(f"_{split}.txt")] = np.array([int(e[1]) for e in entries], dtype=np.int8)
        return cls([root / "JPEGImages" / f"{name}.jpg" for name in names or []], labels)


def run(settings: VocSvmSettings) -> None:
    """Compute or read the features, fit, and write `result.json` and pictures into `settings.out`."""
    fabric = launch(settings)
    protocol, protocol_id = apply_settings(VocSvmProtocol(), settings)
    sides = resolve_sides(settings)
    root = settings.data / "VOC2007" if (settings.data / "VOC2007").is_dir() else settings.data
    splits = {"trainval": VocSplit.read(root, "trainval"), "test": VocSplit.read(root, "test")}
    if list(splits["trainval"].labels) != list(splits["test"].labels):
        raise UserError(f"{root} lists other classes for trainval than for test: restore the original lists")
    _require_images(splits)
    folder = RunFolder(fabric, settings)
    lists = (root / "ImageSets" / "Main").glob("*_*.txt")
    files = [*splits["trainval"].paths, *splits["test"].paths, *lists]
    data = DataIdentity(name=root.name, digest=files_digest(root, files), images=len(splits["test"].paths))
    networks = load_sides(fabric, sides, ("backbone",))
    metrics: dict[str, Metrics] = {}
    per_class: dict[str, dict[str, Metrics]] = {}
    statistics: dict[str, Statistic] = {}
    costs: dict[str, dict[str, float]] = {}
    scores: dict[str, dict[str, np.ndarray]] = {}
    for side, network in networks.items():
        features = {
            name: _unit_features(fabric, settings, protocol, network, split, {"data": data.digest, "split": name})
            for name, split in splits.items()
        }
        scores[side], costs[side] = svm_scores(
            features["trainval"],
            splits["trainval"].labels,
            features["test"],
            protocol.costs,
            settings.seed,
            settings.jobs,
        )
        precision = {
            name: average_precision(splits["test"].labels[name], values) for name, values in scores[side].items()
        }
        metrics[side] = {"mAP": float(np.nanmean(list(precision.values())))}
        per_class[side] = {"AP": {name: float(value) for name, value in precision.items()}}
        statistics[side] = _map_statistic(splits["test"].labels, scores[side])
    intervals = bootstrap(data.images, statistics[OWN], statistics.get(BASELINE), settings.seed, RESAMPLES)
    if folder.main:
        _draw(folder, splits["test"], scores)
    folder.finish(
        packages=("scikit-learn",),
        task="voc-svm",
        protocol=protocol_id,
        data=data,
        details={"costs": costs},
        **result_fields(networks, metrics, intervals, per_class),
    )


def _unit_features(
    fabric: Fabric,
    settings: VocSvmSettings,
    protocol: VocSvmProtocol,
    network: FrozenNetwork,
    split: VocSplit,
    data: dict[str, str],
) -> np.ndarray:
    """(N, D) float32 L2-normalised features of a split's images."""
    identity = {
        **data,
        "weights": network.weights.digest,
        "transform": f"test {protocol.image_size}",
        "features": f"res5 average {POOL} stride 1",
        "precision": settings.precision,
    }
    batch = max(1, settings.batch_size // fabric.world_size)
    transform = test_transform(protocol.image_size)
    compute = image_features(fabric, split.paths, transform, _pooling(network), batch, settings.workers)
    raw = cached_features(fabric, settings.cache, identity, [1] * len(split.paths), compute)
    unit: np.ndarray = raw / (np.linalg.norm(raw, axis=1, keepdims=True) + _EPSILON)
    return unit


def svm_scores(
    train: np.ndarray,
    labels: Mapping[str, np.ndarray],
    test: np.ndarray,
    costs: tuple[float, ...],
    seed: int,
    jobs: int = 1,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Decision values on test images, and the chosen cost, of each class.

    Args:
        train: (M, D) L2-normalised features.
        labels: class -> (M,) 1, -1 or 0 (left out).
        test: (N, D) L2-normalised features.
        costs: values of C; the best mean average precision over 3 folds is taken.
        seed: of the solver's order.
        jobs: processes.

    Raises:
        UserError: a class has fewer than 3 images with or without it.
    """
    for name, values in labels.items():
        if min((values == 1).sum(), (values == -1).sum()) < _FOLDS:
            raise UserError(
                f"class {name} is in fewer than {_FOLDS} images, or absent from fewer: 3 folds need that many"
            )
    fitted = Parallel(n_jobs=jobs)(
        delayed(_fit_class)(train[values != 0], values[values != 0], test, costs, seed) for values in labels.values()
    )
    return (
        {name: scores for name, (scores, _) in zip(labels, fitted, strict=True)},
        {name: cost for name, (_, cost) in zip(labels, fitted, strict=True)},
    )


def average_precision(labels: np.ndarray, scores: np.ndarray) -> float:
    """Average precision in percent: area under the precision-recall steps, difficult images (0) left out.

    NaN where no image shows the class.
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


def _require_images(splits: Mapping[str, VocSplit]) -> None:
    for split in splits.values():
        absent = [path for path in split.paths if not path.is_file()]
        if absent:
            raise UserError(f"{len(absent)} listed images are absent, such as {absent[0]}: restore JPEGImages")


def _draw(folder: RunFolder, test: VocSplit, scores: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """A sheet of the highest-scored test images of each class, a row a class and side."""
    rows, titles = [], []
    meaning = {1: "shown", -1: "not shown", 0: "difficult"}
    for name, labels in test.labels.items():
        for side, values in scores.items():
            best = np.argsort(-values[name])[:8].tolist()
            rows.append([(read_rgb(test.paths[index]), meaning[int(labels[index])]) for index in best])
            titles.append(f"{name} ({side}: {getattr(folder.settings, side)})")
    pictures.save(pictures.sheet(rows, (96, 96), titles), folder.pictures / "highest-scored.png")
