import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ccop_eval.detection.coco_data import CocoSplit, open_coco, register
from ccop_eval.detection.engine import load_engine
from ccop_eval.detection.pictures import CELL, caption, draw_instances, write_sheet
from PIL import Image

load_engine()


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([], "nothing above 0.5 (no detection)"),
        ([0.42, 0.1], "nothing above 0.5 (best score 0.42)"),
        ([0.9, 0.5, 0.49], "2 detections, score >= 0.5"),
        ([0.9], "1 detection, score >= 0.5"),
    ],
)
def test_the_caption_has_the_threshold(scores: list[float], expected: str) -> None:
    assert caption(scores) == expected


def sheet(split: CocoSplit, folder: Path, scores: list[float]) -> np.ndarray:
    """Draw the sheet with the ground truth as detections with these scores."""
    objects: list[dict[str, Any]] = json.loads(split.annotations.read_text())["annotations"]
    found = [
        {"image_id": entry["image_id"], "category_id": entry["category_id"], "bbox": entry["bbox"], "score": score}
        for entry, score in zip(objects, scores, strict=False)
    ]
    (folder / "predictions.json").write_text(json.dumps(found))
    with Image.open(write_sheet(split, folder / "predictions.json", folder / "sheet.png")) as image:
        return np.asarray(image.convert("RGB"))


def test_detections_of_a_low_score_are_not_drawn(draw: Callable[..., Path], tmp_path: Path) -> None:
    split = open_coco(draw(tmp_path / "shapes", train=1, val=1)).val
    register(split)
    with Image.open(split.images / "000001.png") as image:
        plain = np.asarray(image.convert("RGB").resize((CELL, CELL)), dtype=float)

    def drawn(pixels: np.ndarray) -> float:
        return float(np.abs(pixels[18 : 18 + CELL, CELL + 8 : 2 * CELL + 8] - plain).mean())

    low, high = (drawn(sheet(split, tmp_path, [score] * 3)) for score in (0.49, 0.5))
    assert low < 2 < high


def test_class_names_are_white_on_black(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectron2 takes the colour of the box, such as a dark blue."""
    import torch
    from detectron2.structures import Boxes, Instances
    from detectron2.utils import visualizer

    monkeypatch.setattr(visualizer, "random_color", lambda **_: np.array([0.0, 0.0, 0.5]))
    found = Instances((120, 120))
    found.pred_boxes, found.scores = Boxes(torch.tensor([[20.0, 40.0, 100.0, 110.0]])), torch.tensor([0.9])
    found.pred_classes = torch.tensor([0])
    drawn = draw_instances(np.zeros((120, 120, 3), np.uint8), found, ["box"], 2.0)
    assert (drawn.min(axis=2) > 230).sum() > 20
