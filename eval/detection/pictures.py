"""A sheet of detections beside the ground truth."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from ccop_hub.files import replacing
from ccop_hub.images import read_rgb

from .coco_data import CocoSplit

CELL = 384
"""Longest side of one picture on the sheet, in pixels."""

_GAP = 8
_CAPTION = 18


def write_sheet(split: CocoSplit, predictions: Path, path: Path, images: int = 8) -> Path:
    """Draw the first images of a split, ground truth on the left, detections on the right, two pairs a row.

    As many detections are drawn as an image has objects, those with the highest scores: a threshold would leave the
    sheet of a short training empty.

    Args:
        split: the scored split; registered with Detectron2.
        predictions: COCO result JSON (xywh boxes in pixels, run-length masks) as the scorer wrote it.
        path: PNG to write.
        images: how many images to show.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.utils.visualizer import ColorMode, Visualizer

    metadata = MetadataCatalog.get(split.name)
    records = DatasetCatalog.get(split.name)[:images]
    by_image: dict[Any, list[dict[str, Any]]] = {record["image_id"]: [] for record in records}
    for entry in json.loads(predictions.read_text(encoding="utf-8")):
        if entry["image_id"] in by_image:
            by_image[entry["image_id"]].append(entry)
    pairs = []
    for record in records:
        pixels = np.asarray(read_rgb(Path(record["file_name"])))
        scale = CELL / max(pixels.shape[:2])
        truth = Visualizer(pixels, metadata, scale=scale).draw_dataset_dict(record)
        best = sorted(by_image[record["image_id"]], key=lambda entry: -entry["score"])[: len(record["annotations"])]
        instances = _instances(best, pixels.shape[:2], metadata)
        found = Visualizer(pixels, metadata, scale=scale, instance_mode=ColorMode.IMAGE).draw_instance_predictions(
            instances
        )
        pairs.append((truth.get_image(), found.get_image()))
    with replacing(path) as temporary:
        _lay_out(pairs).save(temporary, format="PNG")
    return path


def _instances(entries: list[dict[str, Any]], size: tuple[int, int], metadata: Any) -> Any:
    """COCO result entries of one image as Detectron2's `Instances`."""
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


def _lay_out(pairs: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]) -> Image.Image:
    """Two pairs a row, each half with its caption."""
    cells = [
        (picture, caption) for pair in pairs for picture, caption in zip(pair, ("ground truth", "found"), strict=True)
    ]
    columns = 4
    rows = -(-len(cells) // columns)
    sheet = Image.new("RGB", (columns * (CELL + _GAP), rows * (CELL + _GAP + _CAPTION)), "white")
    draw = ImageDraw.Draw(sheet)
    for index, (picture, caption) in enumerate(cells):
        x, y = (index % columns) * (CELL + _GAP), (index // columns) * (CELL + _GAP + _CAPTION)
        draw.text((x + 2, y + 2), caption, fill="black")
        cell = Image.fromarray(picture)
        cell.thumbnail((CELL, CELL))
        sheet.paste(cell, (x, y + _CAPTION))
    return sheet
