"""Integer conversions to the colour spaces of the search: HSV, CIE L*a*b*, grey, and mixtures of these with RGB.

Each follows OpenCV's 8-bit conversion of the same name, whose results depend on the processor. On x86, HSV and grey are
identical to OpenCV's, and L*a*b* differs by 1 in one out of 30,000 colours.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .compilation import kernel

Image = npt.NDArray[np.uint8]

_HSV_BITS = 12  # precision of the reciprocals in OpenCV's HSV
_HUES = 180  # OpenCV's hue is in steps of 2 degrees
_GREY_BITS = 15
_GREY = (9798, 19235, 3735)  # 0.299, 0.587, 0.114 (ITU-R BT.601) in units of 2**-15

_LAB_BITS = 12  # precision of the matrix from linear RGB to XYZ
_GAMMA_BITS = 3  # fractional bits of linear RGB, in units of 1 / 255
_ROOT_BITS = 15  # precision of the cube roots
_TO_XYZ = ((0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227))  # BT.709
_WHITE = (0.950456, 1.0, 1.088754)  # D65


def colour_images(image: Image, quality: bool) -> Iterator[Image]:
    """Convert an image to the colour spaces to segment, as OpenCV does in its fast and quality modes.

    Args:
        image: uint8 (H, W, 3), RGB, C-contiguous.
        quality: add grey, hue, and (red, green, grey) to HSV and L*a*b*.

    Yields:
        uint8 (H, W, 1 or 3), C-contiguous.
    """
    yield hsv(image, *_hsv_tables())
    yield lab(image, *_lab_tables())
    if quality:
        brightness = grey(image)
        yield brightness
        yield np.ascontiguousarray(hsv(image, *_hsv_tables())[..., :1])
        yield np.concatenate((image[..., :2], brightness), axis=2)


def _hsv_tables() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Reciprocals of 0 to 255, for the saturation (of the largest channel) and for the hue (of the range)."""
    whole = np.maximum(np.arange(256), 1)
    empty = np.arange(256) > 0
    saturation = np.rint((255 << _HSV_BITS) / whole) * empty
    hue = np.rint((_HUES << _HSV_BITS) / (6.0 * whole)) * empty
    return saturation.astype(np.int32), hue.astype(np.int32)


@kernel("uint8[:,:,::1](uint8[:,:,::1], int32[::1], int32[::1])")
def hsv(image: Any, saturations: Any, hues: Any) -> Any:
    """Convert RGB to hue (0 to 179), saturation and value (0 to 255)."""
    out = np.empty_like(image)
    half = 1 << (_HSV_BITS - 1)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            red, green, blue = np.int32(image[y, x, 0]), np.int32(image[y, x, 1]), np.int32(image[y, x, 2])
            value = max(red, green, blue)
            spread = value - min(red, green, blue)
            if value == red:
                angle = green - blue
            elif value == green:
                angle = blue - red + 2 * spread
            else:
                angle = red - green + 4 * spread
            hue = (angle * hues[spread] + half) >> _HSV_BITS
            out[y, x, 0] = hue + _HUES if hue < 0 else hue
            out[y, x, 1] = (spread * saturations[value] + half) >> _HSV_BITS
            out[y, x, 2] = value
    return out


def _lab_tables() -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Tables of linear values for 8-bit sRGB, the matrix to XYZ relative to white, and the function f of CIE 1976."""
    encoded = np.arange(256) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    matrix = np.array(_TO_XYZ) / np.array(_WHITE)[:, None]
    share = np.arange((256 * 3 // 2) << _GAMMA_BITS) / (255 << _GAMMA_BITS)
    root = np.where(share < 0.008856, share * 7.787 + 16 / 116, np.cbrt(share))
    scaled = linear * (255 << _GAMMA_BITS), matrix * (1 << _LAB_BITS), root * (1 << _ROOT_BITS)
    gammas, weights, roots = (np.rint(table).astype(np.int32) for table in scaled)
    return gammas, weights.ravel(), roots


@kernel("uint8[:,:,::1](uint8[:,:,::1], int32[::1], int32[::1], int32[::1])")
def lab(image: Any, gammas: Any, weights: Any, roots: Any) -> Any:
    """Convert sRGB to L* (0 to 100, scaled to 0 to 255), a* + 128 and b* + 128."""
    out = np.empty_like(image)
    half, middle = 1 << (_LAB_BITS - 1), 1 << (_ROOT_BITS - 1)
    lightness = (116 * 255 + 50) // 100
    black = -((16 * 255 * (1 << _ROOT_BITS) + 50) // 100)
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            red, green, blue = gammas[image[y, x, 0]], gammas[image[y, x, 1]], gammas[image[y, x, 2]]
            fx = roots[(red * weights[0] + green * weights[1] + blue * weights[2] + half) >> _LAB_BITS]
            fy = roots[(red * weights[3] + green * weights[4] + blue * weights[5] + half) >> _LAB_BITS]
            fz = roots[(red * weights[6] + green * weights[7] + blue * weights[8] + half) >> _LAB_BITS]
            out[y, x, 0] = min(max((lightness * fy + black + middle) >> _ROOT_BITS, 0), 255)
            out[y, x, 1] = min(max(((500 * (fx - fy) + middle) >> _ROOT_BITS) + 128, 0), 255)
            out[y, x, 2] = min(max(((200 * (fy - fz) + middle) >> _ROOT_BITS) + 128, 0), 255)
    return out


@kernel("uint8[:,:,::1](uint8[:,:,::1])")
def grey(image: Any) -> Any:
    """Convert RGB to grey, (H, W, 1)."""
    height, width, _ = image.shape
    out = np.empty((height, width, 1), np.uint8)
    for y in range(height):
        for x in range(width):
            total = _GREY[0] * image[y, x, 0] + _GREY[1] * image[y, x, 1] + _GREY[2] * image[y, x, 2]
            out[y, x, 0] = (total + (1 << (_GREY_BITS - 1))) >> _GREY_BITS
    return out
