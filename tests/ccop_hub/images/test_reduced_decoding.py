from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccop_hub.images import UnreadableImageError, decode_pixels, decode_rgb, with_padding

PATH = Path("a.jpg")


def photograph(width: int, height: int) -> Image.Image:
    """A smooth image with a bright rectangle from (64, 32) to (160, 96)."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([rows / height * 120, columns / width * 120, (rows + columns) / (width + height) * 120], axis=-1)
    pixels[32:96, 64:160] = 250
    return Image.fromarray(pixels.astype(np.uint8))


def encoded(image: Image.Image, form: str = "JPEG", orientation: int = 1) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, form, **({"quality": 95, "exif": exif} if form == "JPEG" else {}))
    return stream.getvalue()


def decoded(content: bytes, reduction: int = 1, max_pixels: int = 10**6) -> tuple[np.ndarray, int]:
    return decode_pixels(io.BytesIO(content), PATH, max_pixels, lambda _: reduction)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_full_size_is_that_of_decode_rgb(mode: str, orientation: int) -> None:
    content = encoded(photograph(40, 30).convert(mode), orientation=orientation)
    pixels, factor = decoded(content)
    assert factor == 1
    assert np.array_equal(pixels, np.asarray(decode_rgb(io.BytesIO(content), PATH)))


@pytest.mark.parametrize(("most", "factor"), [(1, 1), (2, 2), (3, 2), (7, 4), (8, 8), (100, 8)])
def test_reduced_pixels_stand_for_squares_of_the_full_image(most: int, factor: int) -> None:
    content = encoded(photograph(250, 190))
    full = np.asarray(decode_rgb(io.BytesIO(content), PATH)).astype(float)
    pixels, found = decoded(content, most)
    assert found == factor
    assert pixels.shape == (-(-190 // factor), -(-250 // factor), 3)
    rows, columns = 190 // factor, 250 // factor
    means = full[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3).mean((1, 3))
    # The rectangle's edges are multiples of 8, where an offset of half a pixel would show as 60 levels.
    difference = np.abs(pixels[:rows, :columns] - means)
    assert difference.mean() < 1
    assert np.percentile(difference, 99) < 15


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_rotated_image_is_reduced_only_by_whole_pixels(orientation: int) -> None:
    sizes: list[tuple[int, int]] = []
    for side, expected in ((256, 4), (254, 2), (255, 1)):
        content = encoded(photograph(side, 192), orientation=orientation)

        def most(size: tuple[int, int]) -> int:
            sizes.append(size)
            return 4

        pixels, factor = decode_pixels(io.BytesIO(content), PATH, reduction=most)
        upright = (side, 192) if orientation < 5 else (192, side)
        assert sizes[-1] == upright
        assert factor == (4 if orientation == 1 else expected)
        assert pixels.shape == (-(-upright[1] // factor), -(-upright[0] // factor), 3)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP"])
def test_other_formats_keep_their_size(form: str) -> None:
    pixels, factor = decoded(encoded(photograph(64, 48), form), 8)
    assert factor == 1
    assert pixels.shape == (48, 64, 3)


@pytest.mark.parametrize("reduction", [1, 4])
def test_what_decode_rgb_refuses_is_refused(reduction: int) -> None:
    content = encoded(photograph(250, 190))
    for damaged in (content[: len(content) // 2], content[:200], b"", b"GIF89a", content[2:]):
        with pytest.raises(UnreadableImageError):
            decoded(damaged, reduction)
    with pytest.raises(UnreadableImageError, match="250 x 190"):
        decoded(content, reduction, max_pixels=250 * 190 - 1)


def test_pixels_are_not_copied_and_padding_is_found_again() -> None:
    content = encoded(photograph(40, 30))
    expected = np.asarray(decode_rgb(io.BytesIO(content), PATH))
    pixels, _ = decoded(content)
    padded = with_padding(pixels)
    assert np.array_equal(padded[:, :, :3], expected)
    if hasattr(Image.Image, "__arrow_c_array__"):
        assert padded.shape == (30, 40, 4)
        assert np.shares_memory(padded, pixels)
    # None of these is the whole of a padded array.
    for part in (expected, pixels[1:], pixels[:, 1:], padded[:, :, 1:], padded[:, :, :3][::-1]):
        assert with_padding(part) is part
