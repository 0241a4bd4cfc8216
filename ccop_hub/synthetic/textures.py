"""Random textures and colours, independent of the object class."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]


def palette(rng: np.random.Generator, colours: int = 3) -> Field:
    """Draw matching random colours: float32 (colours, 3), RGB in 0-1, from dark to light or light to dark."""
    hue, spread = rng.random(), rng.uniform(0.02, 0.3)
    light = np.linspace(rng.uniform(0.08, 0.45), rng.uniform(0.55, 0.95), colours)
    if rng.random() < 0.5:
        light = light[::-1]
    saturation = rng.beta(2, 2, colours)
    hues = hue + spread * rng.uniform(-1, 1, colours)
    return np.array(
        [colorsys.hls_to_rgb(h % 1, b, s) for h, b, s in zip(hues, light, saturation, strict=True)], dtype=np.float32
    )


def texture(rng: np.random.Generator, height: int, width: int, period: float) -> Field:
    """Draw a random texture in random colours.

    Args:
        rng: draws the kind, its parameters and the colours.
        height: in pixels.
        width: in pixels.
        period: approximate size of the pattern, in pixels.

    Returns:
        float32 (height, width, 3), RGB in 0-1.
    """
    kind = _PATTERNS[int(rng.integers(len(_PATTERNS)))]
    field = kind(rng, height, width, period)
    grain = fractal_noise(rng, height, width, max(period / 4, 2.0))
    return _colourize(np.clip(field + rng.uniform(0.05, 0.25) * (grain - 0.5), 0, 1), palette(rng))


def fractal_noise(rng: np.random.Generator, height: int, width: int, period: float, octaves: int = 4) -> Field:
    """Smooth random field with detail at `octaves` scales, the coarsest of `period` pixels: float32 (H, W) in 0-1."""
    total = np.zeros((height, width), np.float32)
    weight, weights = 1.0, 0.0
    for _ in range(octaves):
        grid = rng.random((int(height / period) + 3, int(width / period) + 3), dtype=np.float32)
        # Random phase, so that the grid points differ between images.
        shift = rng.random(2) * 0.999
        transform = np.array([[1 / period, 0, shift[0]], [0, 1 / period, shift[1]]])
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        total += weight * cv2.warpAffine(grid, transform, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
        weights += weight
        weight, period = weight / 2, max(period / 2, 1.0)
    noise: Field = np.clip((total / weights - 0.5) * 1.6 + 0.5, 0, 1)
    return noise


def _colourize(field: Field, colours: Field) -> Field:
    """Map 0-1 to a colour ramp."""
    stops = np.linspace(0, 1, len(colours))
    channels = [np.interp(field, stops, colours[:, channel]) for channel in range(3)]
    return np.stack(channels, axis=-1).astype(np.float32)


def _coordinates(rng: np.random.Generator, height: int, width: int, period: float) -> tuple[Field, Field]:
    """Return pixel coordinates in units of the period, rotated, shifted and slightly warped."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    bend = rng.uniform(0, 0.6) * period
    x = x + bend * fractal_noise(rng, height, width, 4 * period, octaves=2)
    y = y + bend * fractal_noise(rng, height, width, 4 * period, octaves=2)
    angle = rng.uniform(0, np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    shift = rng.random(2).astype(np.float32)
    return (cos * x + sin * y) / np.float32(period) + shift[0], (cos * y - sin * x) / np.float32(period) + shift[1]


def _step(values: Field, softness: float) -> Field:
    """Step from 0 to 1 at zero, over a ramp of width `softness` to avoid aliasing."""
    ramp: Field = np.clip(values / softness + 0.5, 0, 1)
    return ramp


def _clouds(rng: np.random.Generator, height: int, width: int, period: float) -> Field:
    return fractal_noise(rng, height, width, 2 * period)


def _stripes(rng: np.random.Generator, height: int, width: int, period: float) -> Field:
    u, _ = _coordinates(rng, height, width, period)
    wave: Field = np.sin(2 * np.pi * u)
    softness = 2.0 if rng.random() < 0.5 else 12.0 / period
    return _step(wave - np.float32(rng.uniform(-0.5, 0.5)), softness)


def _checks(rng: np.random.Generator, height: int, width: int, period: float) -> Field:
    u, v = _coordinates(rng, height, width, 1.5 * period)
    return _step(np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v), 6.0 / period)


def _dots(rng: np.random.Generator, height: int, width: int, period: float) -> Field:
    u, v = _coordinates(rng, height, width, period)
    v += np.float32(0.5) * (np.floor(u) % 2)
    distance: Field = np.hypot(u % 1 - 0.5, v % 1 - 0.5)
    return _step(np.float32(rng.uniform(0.2, 0.38)) - distance, 1.5 / period)


def _bricks(rng: np.random.Generator, height: int, width: int, period: float) -> Field:
    u, v = _coordinates(rng, height, width, period)
    row = np.floor(v * 1.8)
    column = u + 0.5 * (row % 2)
    # One shade per brick, from a hash of its row and column.
    shade = np.sin(row * 12.9898 + np.floor(column) * 78.233) * 43758.5453 % 1
    joint = np.minimum(np.minimum(column % 1, 1 - column % 1), np.minimum(v * 1.8 % 1, 1 - v * 1.8 % 1) / 1.8)
    bricks: Field = (0.35 + 0.6 * shade.astype(np.float32)) * _step(joint - np.float32(0.06), 1.5 / period)
    return bricks


def _wood(rng: np.random.Generator, height: int, width: int, period: float) -> Field:
    u, v = _coordinates(rng, height, width, period)
    noise = fractal_noise(rng, height, width, 3 * period)
    radius = np.hypot(u * np.float32(rng.uniform(0.2, 1)), v) + 1.5 * noise
    grain: Field = 0.5 + 0.5 * np.sin(2 * np.pi * radius)
    return grain


def _cells(rng: np.random.Generator, height: int, width: int, period: float) -> Field:
    """Voronoi cells of random points, each with its own shade, darker towards the borders."""
    count = max(int(height * width / period**2), 2)
    seeds = np.ones((height, width), np.uint8)
    seeds[rng.integers(height, size=count), rng.integers(width, size=count)] = 0
    distance, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    shades = rng.random(int(labels.max()) + 1, dtype=np.float32)
    cells: Field = np.clip(0.25 + 0.75 * shades[labels] - 0.35 * distance / np.float32(period), 0, 1)
    return cells


def _gradient(rng: np.random.Generator, height: int, width: int, period: float) -> Field:
    u, _ = _coordinates(rng, height, width, period)
    ramp: Field = (u - u.min()) / max(float(np.ptp(u)), 1e-6)
    return ramp


_PATTERNS: tuple[Callable[[np.random.Generator, int, int, float], Field], ...] = (
    _clouds,
    _stripes,
    _checks,
    _dots,
    _bricks,
    _wood,
    _cells,
    _gradient,
)
