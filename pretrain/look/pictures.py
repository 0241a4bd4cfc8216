"""Picture sheets of proposals, views with boxes, jitters and augmentations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from ccop_hub.files import make_folder, replacing
from ccop_hub.markup import visible

from ..views.geometry import Boxes, TwoViews, View

Pixels = NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

SHEET_INCHES = 10.5
"""Width of every sheet; all sheets share it so that they can be stacked."""

TITLE_INCHES = 0.28
DOTS_PER_INCH = 110
COLOURS = [f"C{index}" for index in range(10)]
"""Matplotlib's default colour cycle."""

VALID, INVALID = "#2ecc40", "#ff4136"


@dataclass(frozen=True)
class ImageSample:
    """An image with its views and augmentations.

    Attributes:
        name: path relative to the image folder.
        image: the full image.
        proposals: (N, 4) float32 xyxy, in image pixels.
        epoch: epoch of the views.
        views: geometry of the two views.
        query: pixels of the query view.
        key: pixels of the key view.
        augmented: several augmented copies of the query view.
    """

    name: str
    image: Pixels
    proposals: Boxes
    epoch: int
    views: TwoViews
    query: Pixels
    key: Pixels
    augmented: Sequence[Pixels]


@dataclass(frozen=True)
class JitterStage:
    """Jitters of a box at one point of the curriculum.

    Attributes:
        progress: fraction of training done.
        iou_threshold: minimum IoU of a valid jitter.
        boxes: (J, 4) float32 xyxy, in pixels of the key view.
        valid: (J,) bool.
    """

    progress: float
    iou_threshold: float
    boxes: Boxes
    valid: NDArray[np.bool_]


def draw_proposals(samples: Sequence[ImageSample], path: Path) -> None:
    """Draw every image with its proposals, several per row."""
    columns = 2 if len(samples) in (2, 4) else min(3, len(samples))
    rows = -(-len(samples) // columns)
    aspect = max(sample.image.shape[0] / sample.image.shape[1] for sample in samples)
    figure, cells = _grid(rows, columns, "Proposals of selective search", min(aspect, 0.9))
    for cell, sample in zip(cells.flat, samples, strict=False):
        _show(cell, sample.image, f"{sample.name}: {len(sample.proposals)} boxes")
        for index, box in enumerate(sample.proposals):
            _outline(cell, box, COLOURS[index % len(COLOURS)], width=1.2)
    _save(figure, path)


def draw_views(samples: Sequence[ImageSample], path: Path) -> None:
    """Draw one row per image: the image with both crops, the query view and the key view, with objects numbered."""
    figure, cells = _grid(
        len(samples), 3, "Two views of each image: the same number and colour is the same object", 0.95
    )
    for row, sample in zip(cells, samples, strict=True):
        kept = len(sample.views.kept)
        _show(row[0], sample.image, f"{sample.name}: {kept} of {len(sample.proposals)} boxes in both views")
        for view, style in ((sample.views.query, "-"), (sample.views.key, "--")):
            top, left, height, width = view.crop
            crop = np.array([left, top, left + width, top + height], dtype=np.float32)
            _outline(row[0], crop, "black", width=4, style=style)
            _outline(row[0], crop, "white", width=2, style=style)
        for index, original in enumerate(sample.views.kept):
            _outline(row[0], sample.proposals[original], COLOURS[index % len(COLOURS)], width=1.5)
        for cell, view, pixels, name in (
            (row[1], sample.views.query, sample.query, "query"),
            (row[2], sample.views.key, sample.key, "key"),
        ):
            _show(cell, pixels, f"{name} view{', mirrored' if view.flipped else ''}")
            _numbered(cell, view)
    handles = [Line2D([], [], color="black", lw=2, ls=style) for style in ("-", "--")]
    _legend(figure, handles, ["crop of the query view", "crop of the key view"])
    _save(figure, path)


def draw_jitters(samples: Sequence[tuple[ImageSample, Boxes, Sequence[JitterStage]]], path: Path) -> None:
    """Draw one row per image: the jitters of one key box at several points of the curriculum.

    Args:
        samples: the image, its (4,) key box, and the stages of the curriculum.
        path: output PNG.
    """
    figure, cells = _grid(len(samples), len(samples[0][2]), "Jitters of one key box over the curriculum")
    for row, (sample, box, stages) in zip(cells, samples, strict=True):
        for cell, stage in zip(row, stages, strict=True):
            title = f"{stage.progress:.0%} of training, IoU ≥ {stage.iou_threshold:.2f}: "
            _show(cell, sample.key, title + f"{int(stage.valid.sum())} of {len(stage.valid)} valid")
            for jitter, valid in zip(stage.boxes, stage.valid, strict=True):
                _outline(cell, jitter, VALID if valid else INVALID, width=1.3, style="-" if valid else ":")
            _outline(cell, box, "black", width=4)
            _outline(cell, box, "white", width=2.2)
    handles = [
        Line2D([], [], color="#888888", lw=2.2),
        Line2D([], [], color=VALID, lw=1.5),
        Line2D([], [], color=INVALID, lw=1.5, ls=":"),
    ]
    _legend(figure, handles, ["the key box (white)", "valid jitter", "jitter below the IoU threshold"])
    _save(figure, path)


def draw_augmentation(samples: Sequence[ImageSample], path: Path) -> None:
    """Draw one row per image: the query view, followed by augmented copies."""
    figure, cells = _grid(len(samples), 1 + len(samples[0].augmented), "Photometric augmentation")
    for row, sample in zip(cells, samples, strict=True):
        _show(row[0], sample.query, "as cut")
        for number, (cell, pixels) in enumerate(zip(row[1:], sample.augmented, strict=True), start=1):
            _show(cell, pixels, f"draw {number}")
    _save(figure, path)


def _grid(rows: int, columns: int, title: str, aspect: float = 1.0) -> tuple[Figure, NDArray[Any]]:
    """Create a sheet of equal cells for pictures of the given aspect (height over width)."""
    height = rows * (SHEET_INCHES / columns * aspect + TITLE_INCHES) + 0.8
    figure = Figure(figsize=(SHEET_INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(visible(title), fontsize=14, fontweight="bold")
    cells: NDArray[Any] = figure.subplots(rows, columns, squeeze=False)
    for cell in cells.flat:
        cell.axis("off")
    return figure, cells


def _show(cell: Any, pixels: Pixels, title: str) -> None:
    cell.imshow(pixels, interpolation="nearest")
    cell.set_title(visible(title), fontsize=9)
    height, width = pixels.shape[:2]
    cell.set_xlim(-0.5, width - 0.5)
    cell.set_ylim(height - 0.5, -0.5)


def _outline(cell: Any, box: Boxes, colour: Any, width: float, style: str = "-") -> None:
    left, top, right, bottom = box
    corner = (left - 0.5, top - 0.5)
    cell.add_patch(
        Rectangle(corner, right - left, bottom - top, fill=False, edgecolor=colour, linewidth=width, linestyle=style)
    )


def _numbered(cell: Any, view: View) -> None:
    for index, box in enumerate(view.boxes):
        colour = COLOURS[index % len(COLOURS)]
        _outline(cell, box, colour, width=2)
        cell.text(
            (box[0] + box[2]) / 2,
            (box[1] + box[3]) / 2,
            str(index + 1),
            color="white",
            fontsize=8,
            fontweight="bold",
            ha="center",
            va="center",
            bbox={"boxstyle": "round,pad=0.2", "facecolor": colour, "edgecolor": "none"},
        )


def _legend(figure: Figure, handles: Sequence[Line2D], labels: Sequence[str]) -> None:
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=10, frameon=False)


def _save(figure: Figure, path: Path) -> None:
    make_folder(path.parent)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=DOTS_PER_INCH, format="png")
