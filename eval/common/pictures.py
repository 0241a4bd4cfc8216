"""Contact sheets of captioned tiles, and class colours."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ccop_hub.files import make_folder, replacing
from ccop_hub.markup import visible

GAP = 4
_FONT_SIZE = 11
_LINE_HEIGHT = 14
_MOST_LINES = 2

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

Tile = tuple[Image.Image, str]
"""A picture and its caption, which may span several lines."""


def from_tensor(image: Tensor) -> Image.Image:
    """Convert a (3, H, W) uint8 RGB tensor to a picture."""
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy(), "RGB")


def class_colours(count: int) -> np.ndarray:
    """(count, 3) uint8 RGB colours; consecutive ones are easy to distinguish."""
    golden = 0.61803398875
    colours = [
        colorsys.hsv_to_rgb((0.08 + index * golden) % 1, 0.85 - 0.35 * (index % 2), 0.95 - 0.3 * (index % 3 == 2))
        for index in range(count)
    ]
    return (np.array(colours) * 255).round().astype(np.uint8)


def sheet(rows: Sequence[Sequence[Tile]], tile: tuple[int, int], titles: Sequence[str] = ()) -> Image.Image:
    """Draw rows of tiles, each scaled to fit `tile` above its caption; rows may have titles.

    Captions and titles wrap to the available width; a caption line that needs more than two lines is truncated.

    Args:
        rows: the tiles, row by row.
        tile: width and height of a tile, in pixels.
        titles: one title per row, written above it.
    """
    font = ImageFont.load_default(_FONT_SIZE)
    width = max(len(row) for row in rows) * (tile[0] + GAP) + GAP
    headings = [wrap(title, width - 2 * GAP, font) for title in titles] or [[] for _ in rows]
    captions = [[_caption(caption, tile[0], font) for _, caption in row] for row in rows]
    tops, top = [], GAP
    for heading, texts in zip(headings, captions, strict=True):
        tops.append(top)
        top += (
            len(heading) * _LINE_HEIGHT + (GAP if heading else 0) + tile[1] + max(map(len, texts)) * _LINE_HEIGHT + GAP
        )
    canvas = Image.new("RGB", (width, top), "white")
    draw = ImageDraw.Draw(canvas)
    for row, heading, texts, start in zip(rows, headings, captions, tops, strict=True):
        _write(draw, (GAP, start), heading, font)
        upper = start + len(heading) * _LINE_HEIGHT + (GAP if heading else 0)
        for column, ((picture, _), lines) in enumerate(zip(row, texts, strict=True)):
            left = GAP + column * (tile[0] + GAP)
            canvas.paste(_fitted(picture, tile), (left, upper))
            _write(draw, (left, upper + tile[1] + 1), lines, font)
    return canvas


def stacked(upper: Image.Image, lower: Image.Image) -> Image.Image:
    """Put a picture, such as a legend, below another, on white."""
    canvas = Image.new("RGB", (max(upper.width, lower.width), upper.height + lower.height), "white")
    canvas.paste(upper, (0, 0))
    canvas.paste(lower, (0, upper.height))
    return canvas


def wrap(text: str, width: int, font: Font) -> list[str]:
    """Wrap text to lines of at most `width` pixels, at spaces if possible; returns at least one line."""
    lines, line = [], ""
    for letter in visible(text):
        if font.getlength(line + letter) > width and line:
            head, space, rest = line.rpartition(" ")
            lines.append(head if space and letter != " " else line)
            line = rest if space and letter != " " else ""
        line += letter
    return [*lines, line]


def _caption(caption: str, width: int, font: Font) -> list[str]:
    """Wrap each line of a caption to at most two lines."""
    found = []
    for text in caption.split("\n"):
        lines = wrap(text, width, font)
        if len(lines) > _MOST_LINES:
            kept = lines[_MOST_LINES - 1]
            while font.getlength(f"{kept}...") > width and kept:
                kept = kept[:-1]
            lines = [*lines[: _MOST_LINES - 1], f"{kept}..."]
        found += lines
    return found


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[str], font: Font) -> None:
    for number, line in enumerate(lines):
        draw.text((place[0], place[1] + number * _LINE_HEIGHT), line, fill="black", font=font)


def _fitted(picture: Image.Image, tile: tuple[int, int]) -> Image.Image:
    """Scale the picture to fit the tile, as RGB."""
    scale = min(tile[0] / picture.width, tile[1] / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # Nearest-neighbour upscaling shows the exact pixels that the network saw.
    kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BILINEAR
    return picture.convert("RGB").resize(size, kind)


def save(picture: Image.Image, file: Path) -> Path:
    """Write a PNG and return its path."""
    make_folder(file.parent)
    with replacing(file) as temporary:
        picture.save(temporary, format="PNG", optimize=True)
    return file


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices, spread evenly over 0..count-1."""
    return sorted({position * count // wanted for position in range(wanted)})


def in_rows(tiles: list[Tile], columns: int) -> list[list[Tile]]:
    """Split tiles into rows of `columns`."""
    return [tiles[start : start + columns] for start in range(0, len(tiles), columns)]
