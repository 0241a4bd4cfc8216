"""Draw detections next to the ground truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ccop_hub.files import replacing
from ccop_hub.images import read_rgb

from .average_precision import read_predictions
from .coco_data import CocoSplit

THRESHOLD = 0.5
"""Minimum score of a drawn detection."""

CELL = 384
"""Longest side of each picture on the sheet, in pixels."""

_GAP = 8
_CAPTION = 18


def write_sheet(split: CocoSplit, predictions: Path, path: Path, images: int = 8) -> Path:
    """Draw the first images of a split, ground truth on the left and detections on the right, two pairs per row.

    Only detections that score at least `THRESHOLD` are drawn. If there are none, the caption says so and gives the
    best score, so that nobody mistakes an empty picture for a missing one.

    Args:
        split: the scored split, already registered with Detectron2.
        predictions: the scorer's COCO result JSON (xywh boxes in pixels, RLE masks).
        path: PNG to write.
        images: number of images to show.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog

    metadata = MetadataCatalog.get(split.name)
    records = DatasetCatalog.get(split.name)[:images]
    by_image: dict[Any, list[dict[str, Any]]] = {record["image_id"]: [] for record in records}
    for entry in read_predictions(predictions):
        if entry["image_id"] in by_image:
            by_image[entry["image_id"]].append(entry)
    cells: list[tuple[npt.NDArray[np.uint8], str]] = []
    for record in records:
        pixels = np.asarray(read_rgb(Path(record["file_name"])))
        scale = CELL / max(pixels.shape[:2])
        truth = _visualizer(pixels, metadata, scale).draw_dataset_dict(record)
        entries = sorted(by_image[record["image_id"]], key=lambda entry: -entry["score"])
        drawn = [entry for entry in entries if entry["score"] >= THRESHOLD]
        instances = _instances(drawn, pixels.shape[:2], metadata)
        found = draw_instances(pixels, instances, metadata.thing_classes, scale)
        cells += [
            (truth.get_image(), f"ground truth: {_counted(len(record['annotations']), 'object')}"),
            (found, caption([entry["score"] for entry in entries])),
        ]
    with replacing(path) as temporary:
        _lay_out(cells).save(temporary, format="PNG")
    return path


def draw_instances(
    pixels: npt.NDArray[np.uint8], instances: Any, classes: list[str], scale: float
) -> npt.NDArray[np.uint8]:
    """Draw Detectron2's `Instances` with class names and scores over an RGB image, (H, W, 3), scaled."""
    from detectron2.data.catalog import Metadata

    visualizer = _visualizer(pixels, Metadata(name="classes", thing_classes=classes), scale)
    drawn: npt.NDArray[np.uint8] = visualizer.draw_instance_predictions(instances).get_image()
    return drawn


def _visualizer(pixels: npt.NDArray[np.uint8], metadata: Any, scale: float) -> Any:
    """Return Detectron2's visualizer with white class names: its own colours, such as blue, are unreadable on black."""
    from detectron2.utils.visualizer import ColorMode, Visualizer

    visualizer = Visualizer(pixels, metadata, scale=scale, instance_mode=ColorMode.IMAGE)
    draw_text = visualizer.draw_text
    visualizer.draw_text = lambda *places, **options: draw_text(*places, **{**options, "color": "white"})
    return visualizer


def caption(scores: list[float], threshold: float = THRESHOLD) -> str:
    """Caption saying how many of an image's detections are drawn.

    Args:
        scores: scores of all detections, in descending order.
        threshold: minimum score of a drawn detection.
    """
    drawn = sum(score >= threshold for score in scores)
    if drawn:
        return f"{_counted(drawn, 'detection')}, score >= {threshold:g}"
    return f"nothing above {threshold:g}" + (f" (best score {scores[0]:.2f})" if scores else " (no detection)")


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" + ("" if count == 1 else "s")


def _instances(entries: list[dict[str, Any]], size: tuple[int, int], metadata: Any) -> Any:
    """Convert one image's COCO result entries to Detectron2's `Instances`."""
    import torch
    from detectron2.structures import Boxes, BoxMode, Instances
    from pycocotools import mask as rle

    instances = Instances(size)
    boxes = torch.tensor([entry["bbox"] for entry in entries], dtype=torch.float32).reshape(-1, 4)
    instances.pred_boxes = Boxes(BoxMode.convert(boxes, BoxMode.XYWH_ABS, BoxMode.XYXY_ABS))
    instances.scores = torch.tensor([entry["score"] for entry in entries])
    known = metadata.thing_dataset_id_to_contiguous_id
    instances.pred_classes = torch.tensor([known[entry["category_id"]] for entry in entries], dtype=torch.int64)
    if entries and "segmentation" in entries[0]:
        masks = np.stack([rle.decode(entry["segmentation"]) for entry in entries])
        instances.pred_masks = torch.from_numpy(masks.astype(bool))
    return instances


def _lay_out(cells: list[tuple[npt.NDArray[np.uint8], str]]) -> Image.Image:
    """Lay out captioned pictures, four per row."""
    columns = 4
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (CELL + _GAP), rows * (CELL + _GAP + _CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (picture, text) in enumerate(cells):
        x, y = (index % columns) * (CELL + _GAP), (index // columns) * (CELL + _GAP + _CAPTION)
        draw.text((x + 2, y + 2), text, fill="black")
        cell = Image.fromarray(picture)
        cell.thumbnail((CELL, CELL))
        sheet.paste(cell, (x, y + _CAPTION))
    return sheet
