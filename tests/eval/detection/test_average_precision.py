import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ccop_eval.detection.average_precision import (
    IOU_THRESHOLDS,
    RECALL_THRESHOLDS,
    Scorer,
    average_precision,
    match,
    statistic,
    voc_scores,
)

from ccop_hub.files import write_atomically

CATEGORIES = {4: "cat", 9: "dog", 11: "cow"}
"""The last class has no objects."""

Box = list[float]


def _near(box: Box, random: np.random.Generator, spread: float) -> Box:
    return [round(float(value), 2) for value in np.array(box) + random.normal(0, spread, 4)]


def _write(folder: Path, images: int, seed: int, difficult: bool = False) -> tuple[Path, Path]:
    """Ground truth and predictions: near misses, duplicates, wrong classes, background boxes; all scores differ."""
    random = np.random.default_rng(seed)
    annotations: list[dict[str, Any]] = []
    found: list[dict[str, Any]] = []
    for image in range(1, images + 1):
        for _ in range(random.integers(0, 5)):
            category = int(random.choice([4, 9]))
            box = [float(value) for value in (*random.integers(1, 60, 2), *random.integers(8, 50, 2))]
            entry = {"image_id": image, "category_id": category, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
            if difficult:
                entry["difficult"] = int(random.random() < 0.25)
            annotations.append({"id": len(annotations) + 1, **entry})
            for _ in range(random.integers(0, 3)):
                named = category if random.random() < 0.8 else 9
                found.append({"image_id": image, "category_id": named, "bbox": _near(box, random, 3)})
        found.append({"image_id": image, "category_id": 11, "bbox": [5.0, 5.0, 20.0, 20.0]})
    order = random.permutation(len(found))
    for entry, place in zip(found, order.tolist(), strict=True):
        entry["score"] = (place + 1) / 1000
    document = {
        "images": [
            {"id": image, "file_name": f"{image}.jpg", "width": 128, "height": 128} for image in range(1, images + 1)
        ],
        "annotations": annotations,
        "categories": [{"id": key, "name": name} for key, name in CATEGORIES.items()],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("truth.json", document), ("found.json", found)):
        write_atomically(folder / name, json.dumps(content).encode())
    return folder / "truth.json", folder / "found.json"


def _ours(scorer: Scorer, truth: Path, found: Path, counts: list[int] | None = None) -> dict[str, float]:
    images = len(json.loads(truth.read_text())["images"])
    chosen = np.ones(images, dtype=np.int64) if counts is None else np.array(counts)
    return statistic(scorer, {"bbox": match(scorer, truth, found, "bbox")})(chosen)


def _pycocotools(truth: Path, found: Path) -> list[float]:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    known = COCO(str(truth))
    scorer = COCOeval(known, known.loadRes(str(found)), "bbox")
    scorer.evaluate()
    scorer.accumulate()
    scorer.summarize()
    return [100 * float(value) for value in scorer.stats[:3]]


def _resampled(truth: Path, found: Path, counts: list[int], folder: Path) -> tuple[Path, Path]:
    """The data set with each image repeated as often as it was drawn."""
    document, predictions = json.loads(truth.read_text()), json.loads(found.read_text())
    drawn: dict[str, list[dict[str, Any]]] = {"images": [], "annotations": [], "categories": document["categories"]}
    kept = []
    for image, count in zip(document["images"], counts, strict=True):
        for _ in range(count):
            number = len(drawn["images"]) + 1
            drawn["images"].append({**image, "id": number})
            for entry in document["annotations"]:
                if entry["image_id"] == image["id"]:
                    drawn["annotations"].append({**entry, "image_id": number, "id": len(drawn["annotations"]) + 1})
            kept += [{**entry, "image_id": number} for entry in predictions if entry["image_id"] == image["id"]]
    folder.mkdir()
    (folder / "truth.json").write_text(json.dumps(drawn))
    (folder / "found.json").write_text(json.dumps(kept))
    return folder / "truth.json", folder / "found.json"


@pytest.mark.parametrize("seed", range(4))
def test_coco_ap_is_pycocotools_ap(tmp_path: Path, seed: int) -> None:
    paths = _write(tmp_path, 12, seed)
    found = _ours("coco", *paths)
    assert list(found) == ["bbox/AP", "bbox/AP50", "bbox/AP75"]
    assert list(found.values()) == pytest.approx(_pycocotools(*paths))
    assert 5 < found["bbox/AP"] < 95


@pytest.mark.parametrize("scorer", ["coco", "voc"])
@pytest.mark.parametrize("seed", range(3))
def test_ap_of_a_resample_is_that_of_the_data_set_written_out(tmp_path: Path, scorer: Scorer, seed: int) -> None:
    truth, found = _write(tmp_path, 10, seed, difficult=scorer == "voc")
    counts = np.random.default_rng(seed).multinomial(10, [0.1] * 10).tolist()
    assert 0 in counts
    drawn = _resampled(truth, found, counts, tmp_path / "drawn")
    weighted = _ours(scorer, truth, found, counts)
    assert weighted == pytest.approx(_ours(scorer, *drawn))
    if scorer == "coco":
        assert list(weighted.values()) == pytest.approx(_pycocotools(*drawn))


def _slow_voc_ap(truth: Path, found: Path, category: int, overlap: float) -> float:
    """The devkit's algorithm in plain Python, one detection at a time."""
    document, predictions = json.loads(truth.read_text()), json.loads(found.read_text())
    objects = [entry for entry in document["annotations"] if entry["category_id"] == category]
    to_find = sum(not entry.get("difficult", 0) for entry in objects)
    seen: set[int] = set()
    true = false = 0
    points: list[tuple[float, float]] = []
    for detection in sorted((p for p in predictions if p["category_id"] == category), key=lambda p: -p["score"]):
        x, y, width, height = detection["bbox"]
        box = [round(value, 1) for value in (x + 1, y + 1, x + width, y + height)]
        best, best_overlap = None, -1.0
        for entry in objects:
            if entry["image_id"] != detection["image_id"]:
                continue
            left, top, wide, high = entry["bbox"]
            other = [left + 1, top + 1, left + wide, top + high]
            across = max(min(box[2], other[2]) - max(box[0], other[0]) + 1, 0)
            down = max(min(box[3], other[3]) - max(box[1], other[1]) + 1, 0)
            areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other)]
            share = across * down / (sum(areas) - across * down)
            if share > best_overlap:
                best, best_overlap = entry, share
        if best is not None and best_overlap > overlap:
            if best.get("difficult", 0):
                continue
            if best["id"] in seen:
                false += 1
            else:
                seen.add(best["id"])
                true += 1
        else:
            false += 1
        points.append((true / to_find, true / (true + false)))
    levels = np.arange(0, 1.1, 0.1)
    return 100 * sum(max((p for r, p in points if r >= level), default=0.0) for level in levels) / 11


@pytest.mark.parametrize("seed", range(3))
def test_voc_ap_is_a_slow_recomputation(tmp_path: Path, seed: int) -> None:
    truth, found = _write(tmp_path, 12, seed, difficult=True)
    by_class = match("voc", truth, found, "bbox")
    ones = np.ones(12, dtype=np.int64)
    for category in (4, 9):
        ours = average_precision(by_class[category], ones, RECALL_THRESHOLDS["voc"])
        slow = [_slow_voc_ap(truth, found, category, float(overlap)) for overlap in IOU_THRESHOLDS]
        assert ours == pytest.approx(slow)


def test_voc_scores_are_those_of_detectron2s_own_evaluator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ccop_eval.detection.engine import load_engine

    load_engine()
    import torch
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.structures import Boxes, Instances

    # Its evaluator uses a name that NumPy 1.24 removed and 2.0 reintroduced with a different meaning.
    monkeypatch.setattr(np, "bool", bool, raising=False)
    truth, found = _write(tmp_path, 12, 5, difficult=True)
    document, predictions = json.loads(truth.read_text()), json.loads(found.read_text())
    names = {4: "cat", 9: "dog"}
    _write_voc(tmp_path, document, names)
    metadata = MetadataCatalog.get(f"voc-{tmp_path.name}")
    metadata.set(dirname=str(tmp_path), split="test", year=2007, thing_classes=list(names.values()))
    evaluator = PascalVOCDetectionEvaluator(metadata.name)
    evaluator.reset()
    for image in document["images"]:
        own = [p for p in predictions if p["image_id"] == image["id"] and p["category_id"] in names]
        instances = Instances((128, 128))
        boxes = torch.tensor([p["bbox"] for p in own], dtype=torch.float64).reshape(-1, 4)
        instances.pred_boxes = Boxes(torch.cat([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], dim=1))
        instances.scores = torch.tensor([p["score"] for p in own])
        instances.pred_classes = torch.tensor([list(names).index(p["category_id"]) for p in own], dtype=torch.int64)
        evaluator.process([{"image_id": f"{image['id']:06d}"}], [{"instances": instances}])
    theirs = evaluator.evaluate()["bbox"]
    ours = voc_scores(truth, found, list(CATEGORIES.values()))["bbox"]
    assert {name: ours[name] for name in ("AP", "AP50", "AP75")} == pytest.approx(dict(theirs))
    assert 5 < theirs["AP"] < 95
    assert ours["AP"] == pytest.approx((ours["AP-cat"] + ours["AP-dog"]) / 2)
    assert np.isnan(ours["AP-cow"])


def _write_voc(root: Path, document: dict[str, Any], names: dict[int, str]) -> None:
    (root / "ImageSets" / "Main").mkdir(parents=True)
    (root / "Annotations").mkdir()
    listed = [f"{image['id']:06d}" for image in document["images"]]
    (root / "ImageSets" / "Main" / "test.txt").write_text("\n".join(listed))
    for image, name in zip(document["images"], listed, strict=True):
        lines = []
        for entry in document["annotations"]:
            if entry["image_id"] == image["id"]:
                x, y, width, height = (int(value) for value in entry["bbox"])
                corners = {"xmin": x + 1, "ymin": y + 1, "xmax": x + width, "ymax": y + height}
                box = "".join(f"<{side}>{value}</{side}>" for side, value in corners.items())
                kind = f"<name>{names[entry['category_id']]}</name><pose/><truncated>0</truncated>"
                lines.append(
                    f"<object>{kind}<difficult>{entry['difficult']}</difficult><bndbox>{box}</bndbox></object>"
                )
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{''.join(lines)}</annotation>")


@pytest.mark.parametrize(("scorer", "expected"), [("coco", 100 * 51 / 101), ("voc", 100 * 6 / 11)])
def test_half_of_the_objects_found_without_an_error(tmp_path: Path, scorer: Scorer, expected: float) -> None:
    """Precision 1 up to recall 0.5: 51 of COCO's 101 thresholds, 6 of VOC's 11."""
    boxes: list[Box] = [[10.0, 10.0, 20.0, 20.0], [60.0, 60.0, 30.0, 30.0]]
    objects = [
        {"id": number, "image_id": 1, "category_id": 1, "bbox": box, "area": box[2] * box[3], "iscrowd": 0}
        for number, box in enumerate(boxes, start=1)
    ]
    image = {"id": 1, "file_name": "1.jpg", "width": 128, "height": 128}
    document = {"images": [image], "annotations": objects, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "truth.json").write_text(json.dumps(document))
    (tmp_path / "found.json").write_text(json.dumps([{**objects[0], "score": 0.9}]))
    values = _ours(scorer, tmp_path / "truth.json", tmp_path / "found.json")
    assert values["bbox/AP50"] == pytest.approx(expected)
    assert values["bbox/AP"] == pytest.approx(expected)


def test_nothing_found_scores_nothing(tmp_path: Path) -> None:
    truth, _ = _write(tmp_path, 4, 1)
    nothing = tmp_path / "nothing.json"
    nothing.write_text("[]")
    assert _ours("coco", truth, nothing)["bbox/AP"] == 0
    assert _ours("voc", truth, nothing)["bbox/AP"] == 0


def test_a_resample_without_any_object_is_undefined(tmp_path: Path) -> None:
    truth, found = _write(tmp_path, 4, 1)
    assert np.isnan(_ours("coco", truth, found, [0, 0, 0, 0])["bbox/AP"])
