"""Outlines of the object classes. Classes differ only in outline, not in colour or texture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

_CURVE_POINTS = 96


def outline(shape: str, rng: np.random.Generator) -> list[Points]:
    """Draw a random instance of a class.

    Args:
        shape: one of `SHAPES`.
        rng: draws what varies within the class: proportions, number of points, thickness.

    Returns:
        Closed contours, float64 (N, 2) x and y, scaled so that the farthest point is at distance 1 from the origin. A
        second contour is a hole. Shapes are upright; `place` transforms them.
    """
    contours = _OUTLINES[shape](rng)
    centre = (contours[0].max(axis=0) + contours[0].min(axis=0)) / 2
    reach = float(np.linalg.norm(contours[0] - centre, axis=1).max())
    return [(contour - centre) / reach for contour in contours]


def place(contours: list[Points], rng: np.random.Generator, reach: float, centre: tuple[float, float]) -> list[Points]:
    """Rotate, mirror, stretch and shear an outline at random, and move it into place.

    Args:
        contours: output of `outline`.
        rng: draws the transformation.
        reach: approximate distance of the farthest point from the centre, in pixels.
        centre: x and y in pixels.

    Returns:
        The contours in pixels.
    """
    angle, stretch, shear = rng.uniform(0, 2 * np.pi), rng.uniform(0, np.log(1.7)), rng.uniform(-0.25, 0.25)
    turn = _rotation(angle)
    # Stretch along a separate axis; along the shape's own axes, every box would remain a rectangle.
    axis = _rotation(rng.uniform(0, np.pi)) if rng.random() < 0.3 else np.eye(2)
    form = axis @ np.diag(np.exp([stretch / 2, -stretch / 2])) @ np.array([[1.0, shear], [0.0, 1.0]]) @ axis.T
    mirror = np.diag([rng.choice((-1.0, 1.0)), 1.0])
    return [contour @ (turn @ form @ mirror).T * reach + centre for contour in contours]


def _rotation(angle: float) -> npt.NDArray[np.float64]:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _circle(radius: float = 1.0, centre: tuple[float, float] = (0.0, 0.0)) -> Points:
    angles = np.linspace(0, 2 * np.pi, _CURVE_POINTS, endpoint=False)
    return np.stack((np.cos(angles), np.sin(angles)), axis=1) * radius + centre


def _disc(rng: np.random.Generator) -> list[Points]:
    return [_circle()]


def _ring(rng: np.random.Generator) -> list[Points]:
    return [_circle(), _circle(rng.uniform(0.42, 0.68))]


def _crescent(rng: np.random.Generator) -> list[Points]:
    """The unit disc minus a disc of radius r at distance d: two arcs that meet at two horns."""
    bite, distance = rng.uniform(0.75, 0.95), rng.uniform(0.4, 0.6)
    x = (1 - bite**2 + distance**2) / (2 * distance)
    y = np.sqrt(1 - x**2)
    outer, inner = np.arctan2(y, x), np.arctan2(y, x - distance)
    far = np.linspace(outer, 2 * np.pi - outer, _CURVE_POINTS)
    near = np.linspace(2 * np.pi - inner, inner, _CURVE_POINTS)[1:-1]
    outside = np.stack((np.cos(far), np.sin(far)), axis=1)
    inside = np.stack((np.cos(near), np.sin(near)), axis=1) * bite + (distance, 0)
    return [np.concatenate((outside, inside))]


def _triangle(rng: np.random.Generator) -> list[Points]:
    return [np.array([(rng.uniform(-0.5, 0.5), -0.9), (0.9, 0.65), (-0.9, 0.65)])]


def _box(rng: np.random.Generator) -> list[Points]:
    height = rng.uniform(0.55, 1.0)
    return [np.array([(-1, -height), (1, -height), (1, height), (-1, height)])]


def _star(rng: np.random.Generator) -> list[Points]:
    points, inner = int(rng.integers(5, 8)), rng.uniform(0.38, 0.52)
    angles = np.arange(2 * points) * np.pi / points - np.pi / 2
    radii = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return [np.stack((np.cos(angles), np.sin(angles)), axis=1) * radii[:, None]]


def _cross(rng: np.random.Generator) -> list[Points]:
    arm = rng.uniform(0.24, 0.4)
    quarter = np.array([(arm, -1), (arm, -arm), (1, -arm)])
    return [np.concatenate([quarter @ _rotation(k * np.pi / 2).T for k in range(4)])]


def _heart(rng: np.random.Generator) -> list[Points]:
    t = np.linspace(0, 2 * np.pi, _CURVE_POINTS, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t))
    return [np.stack((x, y * rng.uniform(0.9, 1.1)), axis=1)]


def _arrow(rng: np.random.Generator) -> list[Points]:
    shaft, neck, barb = rng.uniform(0.18, 0.3), rng.uniform(-0.1, 0.25), rng.uniform(0.6, 0.8)
    upper = np.array([(-1, -shaft), (neck, -shaft), (neck, -barb), (1, 0)])
    lower = upper[-2::-1] * (1, -1)
    return [np.concatenate((upper, lower))]


def _drop(rng: np.random.Generator) -> list[Points]:
    """A disc joined to a point above it by two tangents."""
    tip = rng.uniform(1.9, 2.6)
    touch = np.arccos(1 / tip)
    angles = np.linspace(-np.pi / 2 + touch, 3 * np.pi / 2 - touch, _CURVE_POINTS)
    disc = np.stack((np.cos(angles), np.sin(angles)), axis=1)
    return [np.concatenate((disc, np.array([(0.0, -tip)])))]


_OUTLINES: dict[str, Callable[[np.random.Generator], list[Points]]] = {
    "disc": _disc,
    "ring": _ring,
    "crescent": _crescent,
    "triangle": _triangle,
    "box": _box,
    "star": _star,
    "cross": _cross,
    "heart": _heart,
    "arrow": _arrow,
    "drop": _drop,
}
SHAPES = tuple(_OUTLINES)
