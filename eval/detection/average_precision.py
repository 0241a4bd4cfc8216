"""Average precision from matched detections: COCO's metric and Pascal VOC's, for any resample of the images.

Both metrics go through one class's detections by falling score and average, over recall thresholds, the highest
precision at that recall or more. They differ in what counts as a match, in the thresholds, and in COCO's hundred
detections an image at most. Matching is done once; a resample of images only weights the matches.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..results.intervals import Statistic

Scorer = Literal["coco", "voc"]
"""COCO's metric, or that of Pascal VOC 2007."""

IOU_THRESHOLDS: npt.NDArray[np.float64] = np.linspace(0.5, 0.95, 10)
"""Overlaps that AP averages over; both metrics (COCO's `iouThrs`, Detectron2's `PascalVOCDetectionEvaluator`)."""

RECALL_THRESHOLDS: dict[Scorer, npt.NDArray[np.float64]] = {
    "coco": np.linspace(0, 1, 101),
    # The devkit's own sum of steps: 0.3 there is a little more than 0.3, and a recall of exactly 0.3 does not reach it.
    "voc": np.arange(0, 1.1, 0.1),
}
"""COCO's 101 and VOC 2007's 11 points of recall."""

_SCORE_DECIMALS = 3
_BOX_DECIMALS = 1


@dataclass(frozen=True)
class ClassMatches:
    """One class's D detections in N images, by falling score, matched at T overlaps.

    Attributes:
        image: (D,) int, index of each detection's image.
        true: (T, D) bool, the detection found an object.
        false: (T, D) bool, it found none. Neither is set where it found something that does not count.
        objects: (N,) int, objects to find in each image.
    """

    image: npt.NDArray[np.int64]
    true: npt.NDArray[np.bool_]
    false: npt.NDArray[np.bool_]
    objects: npt.NDArray[np.int64]


def match(scorer: Scorer, annotations: Path, predictions: Path, kind: str) -> dict[Any, ClassMatches]:
    """Match written predictions against the ground truth.

    Args:
        scorer: whose rules.
        annotations: COCO instance JSON.
        predictions: COCO result JSON (xywh boxes in pixels).
        kind: `bbox` or `segm`; VOC's metric knows boxes alone.

    Returns:
        Category id -> matches, in order of the id; images in order of their ids.
    """
    return _match_coco(annotations, predictions, kind) if scorer == "coco" else _match_voc(annotations, predictions)


def average_precision(
    matches: ClassMatches, counts: npt.NDArray[np.int64], recalls: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """AP in percent at each of the T overlaps, (T,); NaN if there is no object to find.

    Args:
        matches: of one class.
        counts: (N,) int, how often each image is in the resample; ones for the data set itself.
        recalls: thresholds of recall.
    """
    objects = int((matches.objects * counts).sum())
    if objects == 0:
        return np.full(len(matches.true), np.nan)
    weights = counts[matches.image]
    true, false = np.cumsum(matches.true * weights, axis=1), np.cumsum(matches.false * weights, axis=1)
    precision = true / np.maximum(true + false, 1)
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    # One more column: a recall that is never reached has precision 0.
    highest = np.concatenate([highest, np.zeros((len(highest), 1))], axis=1)
    recall = true / objects
    return np.array(
        [100 * row[np.searchsorted(reached, recalls)].mean() for row, reached in zip(highest, recall, strict=True)]
    )


def statistic(scorer: Scorer, by_kind: Mapping[str, Mapping[Any, ClassMatches]]) -> Statistic:
    """`KIND/AP`, `KIND/AP50` and `KIND/AP75` of every kind, in percent, of any resample of the images."""

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
    """VOC 2007's metric in the form of Detectron2's evaluators: `{"bbox": {"AP", "AP50", "AP75", "AP-CLASS"...}}`."""
    classes = match("voc", annotations, predictions, "bbox")
    counts = np.ones(len(next(iter(classes.values())).objects), dtype=np.int64)
    values = statistic("voc", {"bbox": classes})(counts)
    scores = {name.removeprefix("bbox/"): value for name, value in values.items()}
    for name, one in zip(class_names, classes.values(), strict=True):
        scores[f"AP-{name}"] = float(average_precision(one, counts, RECALL_THRESHOLDS["voc"]).mean())
    return {"bbox": scores}


def _match_coco(annotations: Path, predictions: Path, kind: str) -> dict[Any, ClassMatches]:
    """Matches as pycocotools makes them."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    found = json.loads(predictions.read_text(encoding="utf-8"))
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
    """Matches by the VOC devkit's rules.

    A detection is compared with the object it overlaps most, found or not; the overlap has to be more than the
    threshold; pixels are counted from 1 with both ends included; objects marked `difficult` do not count, nor does
    what finds them. As in the devkit's files of results, scores have three decimals and boxes one.
    """
    document = json.loads(annotations.read_text(encoding="utf-8"))
    index_of = {image: index for index, image in enumerate(sorted(entry["id"] for entry in document["images"]))}
    truth: dict[tuple[Any, int], list[dict[str, Any]]] = {}
    for entry in document["annotations"]:
        truth.setdefault((entry["category_id"], index_of[entry["image_id"]]), []).append(entry)
    found: dict[Any, list[dict[str, Any]]] = {}
    for entry in json.loads(predictions.read_text(encoding="utf-8")):
        found.setdefault(entry["category_id"], []).append(entry)
    matches = {}
    for category in sorted(entry["id"] for entry in document["categories"]):
        of_class = {image: entries for (owner, image), entries in truth.items() if owner == category}
        objects = np.zeros(len(index_of), dtype=np.int64)
        for image, entries in of_class.items():
            objects[image] = sum(not entry.get("difficult", 0) for entry in entries)
        detections = sorted(found.get(category, []), key=lambda entry: -round(entry["score"], _SCORE_DECIMALS))
        images = np.array([index_of[entry["image_id"]] for entry in detections], dtype=np.int64)
        true, false = _walk_voc(detections, images, of_class)
        matches[category] = ClassMatches(images, true, false, objects)
    return matches


def _walk_voc(
    detections: list[dict[str, Any]], images: npt.NDArray[np.int64], truth: dict[int, list[dict[str, Any]]]
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """True and false positives, (T, D) each, of one class's detections by falling score."""
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
    """(N, 4) xywh on a continuous plane -> (N, 4) first and last pixel in x and y, counted from 1."""
    return np.concatenate([xywh[:, :2] + 1, xywh[:, :2] + xywh[:, 2:]], axis=1)


def _voc_overlaps(box: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Intersection over union of one (4,) box with (N, 4) others, (N,), all with both ends included."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    shared = np.maximum(high - low + 1, 0).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2] + 1).prod(axis=1)
    return np.asarray(shared / ((box[2:] - box[:2] + 1).prod() + areas - shared))
