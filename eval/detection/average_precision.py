"""Average precision (COCO's and Pascal VOC's) from matched detections, for any resample of the images.

Both metrics sort a class's detections by descending score and average, over recall thresholds, the highest precision
at that recall or above. They differ in the matching rules, the thresholds, and COCO's limit of 100 detections per
image. Matching is done once; resampling images only reweights the matches.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import orjson

from ccop_hub.regular_files import read_regular

from ..results.intervals import Statistic

LARGEST_JSON = 1 << 32
"""Maximum size in bytes of predictions, and of annotations that were normalised before."""

Scorer = Literal["coco", "voc"]
"""The metric: COCO's or Pascal VOC 2007's."""

IOU_THRESHOLDS: npt.NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
"""IoU thresholds of both metrics (COCO's `iouThrs`, Detectron2's `PascalVOCDetectionEvaluator`)."""

RECALL_THRESHOLDS: dict[Scorer, npt.NDArray[np.float64]] = {
    "coco": np.linspace(0, 1, 101),
    # As in the devkit, rounding included: its 0.3 is slightly above 0.3, so a recall of exactly 0.3 falls short of it.
    "voc": np.arange(0, 1.1, 0.1),
}
"""COCO's 101 and VOC 2007's 11 recall thresholds."""

_SCORE_DECIMALS = 3
_BOX_DECIMALS = 1


@dataclass(frozen=True)
class ClassMatches:
    """One class's D detections in N images, by descending score, matched at T IoU thresholds.

    Attributes:
        image: (D,) int, image index of each detection.
        true: (T, D) bool, true positives.
        false: (T, D) bool, false positives. A detection that matches an ignored object is neither.
        objects: (N,) int, ground-truth objects in each image, without ignored ones.
    """

    image: npt.NDArray[np.int64]
    true: npt.NDArray[np.bool_]
    false: npt.NDArray[np.bool_]
    objects: npt.NDArray[np.int64]


def match(scorer: Scorer, annotations: Path, predictions: Path, kind: str) -> dict[Any, ClassMatches]:
    """Match saved predictions to the ground truth.

    Args:
        scorer: the metric whose matching rules apply.
        annotations: COCO instance JSON.
        predictions: COCO result JSON (xywh boxes in pixels).
        kind: `bbox` or `segm`; VOC's metric supports only boxes.

    Returns:
        Category id -> matches, sorted by category id; images are indexed in order of their ids.
    """
    return _match_coco(annotations, predictions, kind) if scorer == "coco" else _match_voc(annotations, predictions)


def average_precision(
    matches: ClassMatches, counts: npt.NDArray[np.int64], recalls: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """AP in percent at each of the T IoU thresholds, (T,); NaN if there are no objects.

    Args:
        matches: one class's matches.
        counts: (N,) int, how often each image occurs in the resample; all ones for the original data set.
        recalls: recall thresholds.
    """
    objects = int((matches.objects * counts).sum())
    if objects == 0:
        return np.full(len(matches.true), np.nan)
    weights = counts[matches.image]
    true, false = np.cumsum(matches.true * weights, axis=1), np.cumsum(matches.false * weights, axis=1)
    precision = true / np.maximum(true + false, 1)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # The extra column gives recalls that are never reached a precision of 0.
    highest = np.concatenate([highest, np.zeros((len(highest), 1))], axis=1)
    recall = true / objects
    return np.array(
        [100 * row[np.searchsorted(reached, recalls)].mean() for row, reached in zip(highest, recall, strict=True)]
    )


def statistic(scorer: Scorer, by_kind: Mapping[str, Mapping[Any, ClassMatches]]) -> Statistic:
    """A statistic: every kind's `KIND/AP`, `KIND/AP50` and `KIND/AP75`, in percent, for any resample of the images."""

    def metrics(counts: npt.NDArray[np.int64]) -> dict[str, float]:
        values = {}
        for kind, classes in by_kind.items():
            table = np.stack([average_precision(one, counts, RECALL_THRESHOLDS[scorer]) for one in classes.values()])
            known = table[~np.isnan(table[:, 0])]
            by_overlap = known.mean(axis=0) if len(known) else np.full(len(IOU_THRESHOLDS), np.nan)
            values[f"{kind}/AP"] = float(by_overlap.mean())
            values[f"{kind}/AP50"], values[f"{kind}/AP75"] = float(by_overlap[0]), float(by_overlap[5])
        return values

    return metrics


def voc_scores(annotations: Path, predictions: Path, class_names: list[str]) -> dict[str, dict[str, float]]:
    """VOC 2007's metric in Detectron2's format: `{"bbox": {"AP", "AP50", "AP75", "AP-CLASS"...}}`, in percent."""
    classes = match("voc", annotations, predictions, "bbox")
    counts = np.ones(len(next(iter(classes.values())).objects), dtype=np.int64)
    values = statistic("voc", {"bbox": classes})(counts)
    scores = {name.removeprefix("bbox/"): value for name, value in values.items()}
    for name, one in zip(class_names, classes.values(), strict=True):
        scores[f"AP-{name}"] = float(average_precision(one, counts, RECALL_THRESHOLDS["voc"]).mean())
    return {"bbox": scores}


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Read the scorer's COCO result JSON, which this run has just written: xywh boxes in pixels, RLE masks."""
    found: list[dict[str, Any]] = orjson.loads(read_regular(path, LARGEST_JSON))
    return found


def _match_coco(annotations: Path, predictions: Path, kind: str) -> dict[Any, ClassMatches]:
    """Match with pycocotools."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = read_predictions(predictions)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        scorer = COCOeval(truth, truth.loadRes(found) if found else COCO(), kind)
        settings = scorer.params
        settings.imgIds, settings.catIds = sorted(truth.getImgIds()), sorted(truth.getCatIds())
        settings.areaRng, settings.areaRngLbl = settings.areaRng[:1], settings.areaRngLbl[:1]
        scorer.evaluate()
    images = len(settings.imgIds)
    matches = {}
    for place, category in enumerate(settings.catIds):
        entries = scorer.evalImgs[place * images : (place + 1) * images]
        objects = np.array([0 if one is None else int((np.asarray(one["gtIgnore"]) == 0).sum()) for one in entries])
        parts = [(index, one) for index, one in enumerate(entries) if one is not None and len(one["dtScores"])]
        overlaps = len(IOU_THRESHOLDS)
        scores = np.concatenate([np.zeros(0), *(one["dtScores"] for _, one in parts)])
        image = np.concatenate([np.zeros(0, int), *(np.full(len(one["dtScores"]), index) for index, one in parts)])
        hit = np.concatenate([np.zeros((overlaps, 0)), *(one["dtMatches"] for _, one in parts)], axis=1) > 0
        counted = np.concatenate([np.zeros((overlaps, 0)), *(one["dtIgnore"] for _, one in parts)], axis=1) == 0
        order = np.argsort(-scores, kind="stable")
        matches[category] = ClassMatches(
            image[order], (hit & counted)[:, order], (~hit & counted)[:, order], objects.astype(np.int64)
        )
    return matches


def _match_voc(annotations: Path, predictions: Path) -> dict[Any, ClassMatches]:
    """Match by the VOC devkit's rules.

    A detection is compared only with the object it overlaps most, even if that is already matched. The IoU must exceed
    the threshold. Pixel coordinates are 1-based and inclusive. `difficult` objects and detections that match them are
    ignored. As in the devkit's result files, scores are rounded to three decimals and boxes to one.
    """
    document = orjson.loads(read_regular(annotations, LARGEST_JSON))
    index_of = {image: index for index, image in enumerate(sorted(entry["id"] for entry in document["images"]))}
    truth: dict[tuple[Any, int], list[dict[str, Any]]] = {}
    for entry in document["annotations"]:
        truth.setdefault((entry["category_id"], index_of[entry["image_id"]]), []).append(entry)
    found: dict[Any, list[dict[str, Any]]] = {}
    for entry in read_predictions(predictions):
        found.setdefault(entry["category_id"], []).append(entry)
    matches = {}
    for category in sorted(entry["id"] for entry in document["categories"]):
        of_class = {image: entries for (owner, image), entries in truth.items() if owner == category}
        objects = np.zeros(len(index_of), dtype=np.int64)
        for image, entries in of_class.items():
            objects[image] = sum(not entry.get("difficult", 0) for entry in entries)
        detections = sorted(found.get(category, []), key=lambda entry: -round(entry["score"], _SCORE_DECIMALS))
        images = np.array([index_of[entry["image_id"]] for entry in detections], dtype=np.int64)
        true, false = _count_matches(detections, images, of_class)
        matches[category] = ClassMatches(images, true, false, objects)
    return matches


def _count_matches(
    detections: list[dict[str, Any]], images: npt.NDArray[np.int64], truth: dict[int, list[dict[str, Any]]]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """True and false positives, (T, D) each, of one class's detections by descending score."""
    boxes = {image: _voc_pixels(np.array([entry["bbox"] for entry in entries])) for image, entries in truth.items()}
    taken = {image: np.zeros((len(IOU_THRESHOLDS), len(entries)), dtype=bool) for image, entries in truth.items()}
    true = np.zeros((len(IOU_THRESHOLDS), len(detections)), dtype=bool)
    false = np.ones_like(true)
    for place, (detection, image) in enumerate(zip(detections, images.tolist(), strict=True)):
        if image not in truth:
            continue
        box = _voc_pixels(np.array(detection["bbox"])[None]).round(_BOX_DECIMALS)[0]
        overlaps = _voc_overlaps(box, boxes[image])
        best = int(overlaps.argmax())
        hit = overlaps[best] > IOU_THRESHOLDS
        if truth[image][best].get("difficult", 0):
            false[:, place] = ~hit
            continue
        true[:, place] = hit & ~taken[image][:, best]
        false[:, place] = ~true[:, place]
        taken[image][:, best] |= hit
    return true, false


def _voc_pixels(xywh: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, 4) xywh in continuous coordinates -> (N, 4) xyxy in VOC's 1-based, inclusive pixels."""
    return np.concatenate([xywh[:, :2] + 1, xywh[:, :2] + xywh[:, 2:]], axis=1)


def _voc_overlaps(box: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """IoU of one (4,) box with (N, 4) others, (N,); all are xyxy with both ends included."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.maximum(high - low + 1, 0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2] + 1).prod(axis=1)
    return np.asarray(shared / ((box[2:] - box[:2] + 1).prod() + areas - shared))
