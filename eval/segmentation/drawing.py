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
    """Draw the first training crops, each above its labels."""
    images, labels = [], []
    for position in range(min(6, len(crops))):
        pixels, classes = crops[position]
        images.append((pictures.from_tensor(pixels), f"crop {position}"))
        labels.append((coloured(classes.numpy(), table), ""))
    pictures.save(pictures.sheet([images, labels], (200, 200)), file)


def draw_predictions(model: Segmentation, data: LabelledImages, file: Path) -> None:
    """Draw scored images with ground truth, prediction and errors, and a colour legend."""
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
    swatch = np.arange(len(data.table.classes))
    key = [(coloured(np.full((24, 60), index), data.table), data.table.classes[index]) for index in swatch.tolist()]
    pictures.save(pictures.sheet(rows, (240, 135)), file)
    pictures.save(pictures.sheet(pictures.in_rows(key, 5), (60, 24)), file.with_name("colours.png"))


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
