"""Draw training crops and predictions, and write predictions as label PNGs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from ccop_hub.files import make_folder, replacing

from ..common import pictures
from .crops import TrainingCrops
from .dataset import LabelledImages
from .label_table import IGNORED, LabelTable
from .training import ScoredImages, Segmentation

_BLEND = 0.55
"""Opacity of the class colours over the image."""

_SWATCH = 100
"""Width of a colour in the legend, in pixels, with room for the name below it."""


def coloured(classes: np.ndarray, table: LabelTable, image: Image.Image | None = None) -> Image.Image:
    """Colour a class map, with ignored pixels in black, and optionally blend it over the image."""
    colours = table.colours if table.colours is not None else pictures.class_colours(len(table.classes))
    lookup = np.zeros((256, 3), dtype=np.uint8)
    lookup[: len(colours)] = colours
    painted = Image.fromarray(lookup[classes.astype(np.uint8)])
    if image is None:
        return painted
    return Image.blend(image.convert("RGB").resize(painted.size), painted, _BLEND)


def draw_crops(crops: TrainingCrops, table: LabelTable, file: Path) -> None:
    """Draw the first training crops, each above its labels, and a legend."""
    images, labels = [], []
    for position in range(min(6, len(crops))):
        pixels, classes = crops[position]
        images.append((pictures.from_tensor(pixels), f"crop {position}"))
        labels.append((coloured(classes.numpy(), table), ""))
    pictures.save(_with_legend(pictures.sheet([images, labels], (200, 200)), table), file)


def draw_predictions(model: Segmentation, data: LabelledImages, file: Path) -> None:
    """Draw scored images with ground truth, prediction and errors, above a legend."""
    images = ScoredImages(data, data.val, model.protocol)
    rows: list[list[pictures.Tile]] = []
    for index in pictures.spread(len(images), 6):
        pixels, truth = images[index]
        predicted = model.predict(pixels, (truth.shape[0], truth.shape[1])).cpu().numpy()
        image, label = pictures.from_tensor(pixels), truth.numpy()
        wrong = Image.fromarray(np.where((label != IGNORED) & (label != predicted), 255, 0).astype(np.uint8))
        rows.append(
            [
                (image, data.val.images[index].name[-36:]),
                (coloured(label, data.table, image), "truth"),
                (coloured(predicted, data.table, image), "prediction"),
                (wrong, "wrong pixels"),
            ]
        )
    pictures.save(_with_legend(pictures.sheet(rows, (240, 135)), data.table), file)


def _with_legend(sheet: Image.Image, table: LabelTable) -> Image.Image:
    """Put the colours of all classes, with their names, below a sheet."""
    key = [(coloured(np.full((24, 60), index), table), name) for index, name in enumerate(table.classes)]
    columns = max(1, sheet.width // (_SWATCH + pictures.GAP))
    return pictures.stacked(sheet, pictures.sheet(pictures.in_rows(key, columns), (_SWATCH, 24)))


def write_predictions(model: Segmentation, data: LabelledImages, folder: Path) -> None:
    """Write each scored image's prediction as a PNG of label ids, named after the image."""
    images = ScoredImages(data, data.val, model.protocol)
    ids = np.array(data.table.ids, dtype=np.uint8)
    make_folder(folder)
    for index in range(len(images)):
        pixels, truth = images[index]
        predicted = model.predict(pixels, (truth.shape[0], truth.shape[1])).cpu().numpy()
        with replacing(folder / data.val.images[index].with_suffix(".png").name, sync=False) as temporary:
            Image.fromarray(ids[predicted]).save(temporary, format="PNG")
