"""Picture sheets: rows of labelled tiles, and colours for classes."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ccop_hub.files import replacing

GAP = 4
_FONT_SIZE = 11
_LINE_HEIGHT = 14

Tile = tuple[Image.Image, str]
"""A picture and its caption, which may have several short lines."""


def from_tensor(image: Tensor) -> Image.Image:
    """A (3, H, W) uint8 RGB tensor as a picture."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy(), "RGB")


def class_colours(count: int) -> np.ndarray:
    """(count, 3) uint8 RGB colours that neighbours in the list do not share."""
    golden = 0.61803398875
    colours = [
        colorsys.hsv_to_rgb((0.08 + index * golden) % 1, 0.85 - 0.35 * (index % 2), 0.95 - 0.3 * (index % 3 == 2))
        for index in range(count)
    ]
    return (np.array(colours) * 255).round().astype(np.uint8)


def sheet(rows: Sequence[Sequence[Tile]], tile: tuple[int, int], titles: Sequence[str] = ()) -> Image.Image:
    """Rows of tiles, each fitted into `tile` pixels (width, height) over its caption, under an optional row title.

    Args:
        rows: the tiles, row by row.
        tile: width and height of a tile, in pixels.
        titles: a title a row, written above it.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    columns = max(len(row) for row in rows)
    title_height = _LINE_HEIGHT + GAP if titles else 0
    lines = max(caption.count("\n") + 1 for row in rows for _, caption in row)
    row_height = title_height + tile[1] + lines * _LINE_HEIGHT + GAP
    canvas = Image.new("RGB", (columns * (tile[0] + GAP) + GAP, len(rows) * row_height + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for number, row in enumerate(rows):
        top = GAP + number * row_height
        if titles:
            draw.text((GAP, top), titles[number], fill="black", font=font)
        for column, (picture, caption) in enumerate(row):
            left = GAP + column * (tile[0] + GAP)
            fitted = picture.convert("RGB")
            scale = min(tile[0] / fitted.width, tile[1] / fitted.height)
            size = (max(1, round(fitted.width * scale)), max(1, round(fitted.height * scale)))
            # Enlarged pixels stay square: what the network saw is a matter of pixels.
            kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
            canvas.paste(fitted.resize(size, kind), (left, top + title_height))
            draw.multiline_text((left, top + title_height + tile[1] + 1), caption, fill="black", font=font, spacing=1)
    return canvas


def save(picture: Image.Image, file: Path) -> Path:
    """Write a PNG; returns the file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    return file


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices, evenly over 0..count-1."""
    return sorted({position * count // wanted for position in range(wanted)})


def in_rows(tiles: list[Tile], columns: int) -> list[list[Tile]]:
    """Tiles cut into rows of `columns`."""
    return [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
