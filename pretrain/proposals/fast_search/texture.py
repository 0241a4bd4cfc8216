"""Texture features of an image: binned gradients in four directions at every pixel (Uijlings et al. 2013, 3.2).

As in OpenCV, these are Scharr gradients along x and y, and along the axes of the image rotated by 45 degrees. Each is
split into its positive and negative part, and each part is binned into ten bins from its minimum to its maximum over
the image. One of the parts is always zero, so a single number below 20 encodes the bins of both.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .compilation import inlined, kernel
from .segmentation import reflected

DIRECTIONS = 4
BINS = 10  # per part of a gradient
JOINT_BINS = 2 * BINS  # 0 to 9: bin of the negative part, if the positive one is 0; 10 to 19: vice versa

_STEEPEST = 16 * 255  # maximum gradient of 8-bit pixels
_SINE_BITS = 31
_SINE = round(math.sqrt(0.5) * (1 << _SINE_BITS))  # sine and cosine of 45 degrees
_BLEND_BITS = 8  # of the bilinear weights, in x and in y
_BLEND_HALF = 1 << (2 * _BLEND_BITS - 1)
_LANES = 48  # values compared at once; divisible by both 1 and 3 channels


def texture_bins(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Compute the joint bin of every gradient.

    Args:
        image: uint8 (H, W, C), C-contiguous.

    Returns:
        uint8 (H * W, 4 * C), below `JOINT_BINS`, grouped by direction: x, y, then both diagonals.
    """
    height, width, channels = image.shape
    bins = np.empty((height * width, DIRECTIONS * channels), np.uint8)
    for direction, along_y in enumerate((False, True)):
        bin_gradients(scharr(image, along_y).reshape(-1, channels), bins, direction)
    across, down = turned_size(width, height)
    turned = turn(image, across, down)
    for direction, along_y in enumerate((False, True)):
        bin_gradients(
            turn_back(scharr(turned, along_y), width, height).reshape(-1, channels), bins, direction + DIRECTIONS // 2
        )
    return bins


def turned_size(width: int, height: int) -> tuple[int, int]:
    """Return the width and height of the frame around an image rotated by 45 degrees about its centre, as in OpenCV."""
    reach = (width + height) * math.sqrt(0.125)
    sizes = [math.ceil(side / 2 + reach) - math.floor(side / 2 - reach) + 1 for side in (width, height)]
    return sizes[0], sizes[1]


@kernel("int16[:,:,::1](uint8[:,:,::1], boolean)")
def scharr(image: Any, along_y: bool) -> Any:
    """Compute the Scharr gradient (3, 10, 3) of each channel, int16 (H, W, C), with reflected borders."""
    height, width, channels = image.shape
    across = width * channels
    flat = image.reshape(height, across)
    out = np.empty((height, width, channels), np.int16)
    padded = np.empty(across + 2 * channels, np.int16)
    for y in range(height):
        above, row, below = flat[reflected(y - 1, height)], flat[y], flat[reflected(y + 1, height)]
        inner = padded[channels : channels + across]
        if along_y:
            for i in range(across):
                inner[i] = np.int16(below[i]) - np.int16(above[i])
        else:
            for i in range(across):
                inner[i] = np.int16(3) * (np.int16(above[i]) + np.int16(below[i])) + np.int16(10) * np.int16(row[i])
        for c in range(channels):
            padded[c] = inner[reflected(-1, width) * channels + c]
            padded[channels + across + c] = inner[reflected(width, width) * channels + c]
        target = out[y].reshape(across)
        left, right = padded[:across], padded[2 * channels :]
        if along_y:
            for i in range(across):
                target[i] = np.int16(3) * (left[i] + right[i]) + np.int16(10) * inner[i]
        else:
            for i in range(across):
                target[i] = right[i] - left[i]
    return out


@inlined
def blend_at_border(image: Any, left: Any, top: Any, weights: Any, out: Any) -> None:
    """Interpolate between four pixels into `out`, treating those outside the image as black."""
    height, width, channels = image.shape
    for c in range(channels):
        total = np.int32(_BLEND_HALF)
        for k in range(4):
            x, y = left + k % 2, top + k // 2
            if 0 <= x < width and 0 <= y < height:
                total += weights[k] * np.int32(image[y, x, c])
        out[c] = total >> np.int32(2 * _BLEND_BITS)


@inlined
def blend(pixels: Any, corner: Any, channels: Any, stride: Any, weights: Any, out: Any, place: Any) -> None:
    """Interpolate between four pixels, the first of which starts at `corner`, into a row of `out`."""
    w00, w01, w10, w11 = weights
    for c in range(channels):
        i = corner + np.uint32(c)
        total = w00 * np.int32(pixels[i]) + w01 * np.int32(pixels[i + np.uint32(channels)])
        total += w10 * np.int32(pixels[i + stride]) + w11 * np.int32(pixels[i + stride + np.uint32(channels)])
        out[place, c] = (total + np.int32(_BLEND_HALF)) >> np.int32(2 * _BLEND_BITS)


@inlined
def blend_along(image: Any, x: Any, y: Any, step_x: Any, step_y: Any, out: Any) -> None:
    """Sample an image bilinearly along a line into `out` (N, C), black outside. Positions are in 2**-31 pixels."""
    height, width, channels = image.shape
    pixels, stride = image.reshape(-1), np.uint32(width * channels)
    one = np.int32(1 << _BLEND_BITS)
    for i in range(len(out)):
        left, top = np.int32(x >> _SINE_BITS), np.int32(y >> _SINE_BITS)
        right = np.int32((x >> (_SINE_BITS - _BLEND_BITS)) & ((1 << _BLEND_BITS) - 1))
        lower = np.int32((y >> (_SINE_BITS - _BLEND_BITS)) & ((1 << _BLEND_BITS) - 1))
        weights = ((one - right) * (one - lower), right * (one - lower), (one - right) * lower, right * lower)
        x += step_x
        y += step_y
        # Cast to unsigned, negative numbers exceed both limits.
        if np.uint32(left) < np.uint32(width - 1) and np.uint32(top) < np.uint32(height - 1):
            corner = np.uint32(top) * stride + np.uint32(left) * np.uint32(channels)
            if channels == 3:  # a constant lets the compiler unroll the loop over the channels
                blend(pixels, corner, 3, stride, weights, out, i)
            else:
                blend(pixels, corner, channels, stride, weights, out, i)
        else:
            blend_at_border(image, left, top, weights, out[i])


@kernel("uint8[:,:,::1](uint8[:,:,::1], int64, int64)")
def turn(image: Any, across: int, down: int) -> Any:
    """Rotate an image by 45 degrees counter-clockwise (bilinear) into a black frame of the given size."""
    height, width, channels = image.shape
    out = np.zeros((down, across, channels), np.uint8)
    for row in range(down):
        # Twice the offset from the frame's centre, which may be between pixels.
        dx, dy = -across, 2 * row - down
        x = ((dx - dy) * _SINE >> 1) + (width << (_SINE_BITS - 1))
        y = ((dx + dy) * _SINE >> 1) + (height << (_SINE_BITS - 1))
        # Both increase along the row, so only one stretch of it overlaps the image.
        first = max(0, -(min(x, y) // _SINE) - 2)
        room = min((width << _SINE_BITS) - x, (height << _SINE_BITS) - y)
        stop = min(across, room // _SINE + 1)
        if first < stop:
            blend_along(image, x + first * _SINE, y + first * _SINE, _SINE, _SINE, out[row, first:stop])
    return out


@kernel("int16[:,:,::1](int16[:,:,::1], int64, int64)")
def turn_back(gradient: Any, width: int, height: int) -> Any:
    """Rotate a gradient back (bilinear) and crop it to the image's width and height."""
    down, across, channels = gradient.shape
    out = np.empty((height, width, channels), np.int16)
    # OpenCV rotates back about a whole pixel, and crops at a whole pixel.
    middle_x, middle_y = across // 2, down // 2
    dx = max(0, (across - width) // 2) - middle_x
    for row in range(height):
        dy = row + max(0, (down - height) // 2) - middle_y
        x, y = (dx + dy) * _SINE + (middle_x << _SINE_BITS), (dy - dx) * _SINE + (middle_y << _SINE_BITS)
        blend_along(gradient, x, y, _SINE, -_SINE, out[row])
    return out


@kernel("int16[:,::1](int16[:,::1])")
def extremes(gradient: Any) -> Any:
    """Compute the minimum and maximum of each channel: (N, C) -> int16 (2, C)."""
    channels = gradient.shape[1]
    flat = gradient.reshape(-1)
    lowest, highest = np.empty(_LANES, np.int16), np.empty(_LANES, np.int16)
    for j in range(_LANES):
        lowest[j], highest[j] = flat[j % channels], flat[j % channels]
    whole = len(flat) // _LANES * _LANES
    for i in range(0, whole, _LANES):
        for j in range(_LANES):
            lowest[j], highest[j] = min(lowest[j], flat[i + j]), max(highest[j], flat[i + j])
    for i in range(whole, len(flat)):
        j = i - whole
        lowest[j], highest[j] = min(lowest[j], flat[i]), max(highest[j], flat[i])
    found = np.empty((2, channels), np.int16)
    for c in range(channels):
        found[0, c], found[1, c] = lowest[c::channels].min(), highest[c::channels].max()
    return found


@kernel("void(uint8[::1], int64, int64)")
def fill_bins(table: Any, least: int, most: int) -> None:
    """Write the joint bin of every gradient from `least` to `most` to a table that starts at the lowest gradient."""
    for value in range(least, most + 1):
        if value > 0:
            low, high, first = max(least, 0), most, BINS
        else:
            low, high, first = least, min(most, 0), 0
        # As in OpenCV, quantise to 0 to 255 first, then to bins. The maximum of the negative part is 0.
        spread = high - low
        step = (510 * (value - low) + spread) // (2 * spread) if spread else 255
        table[value + _STEEPEST] = first + step * BINS // 256


@kernel("void(int16[:,::1], uint8[:,::1], int64)")
def bin_gradients(gradient: Any, bins: Any, direction: int) -> None:
    """Write the joint bins of one direction's gradients (N, C) to its columns of `bins`."""
    count, channels = gradient.shape
    span = 2 * _STEEPEST + 1
    table = np.empty(channels * span, np.uint8)
    found = extremes(gradient)
    for c in range(channels):
        fill_bins(table[c * span : (c + 1) * span], found[0, c], found[1, c])
    columns = bins[:, direction * channels : (direction + 1) * channels]
    for i in range(count):
        for c in range(channels):
            columns[i, c] = table[np.uint32(np.int32(gradient[i, c]) + np.int32(c * span + _STEEPEST))]
