"""Paint a scene: textured shapes that occlude each other on a textured background."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from .shapes import SHAPES, Points, outline, place
from .textures import Field, fractal_noise, texture

NO_OBJECT = -1

_ASPECTS = (4 / 3, 3 / 2, 1.0, 3 / 4)
# Each pair gives the values at clutter 0 and at clutter 1, with linear interpolation in between.
_FEWEST_OBJECTS = (2, 4)
_MOST_OBJECTS = (4, 10)
_SMALLEST_REACH = (0.2, 0.09)  # object radius relative to the image's shorter side; drawn log-uniformly
_LARGEST_REACH = (0.36, 0.34)
_MOST_STRANDS = (0, 3)
_NEIGHBOURLY_SHARE = (0.1, 0.6)  # fraction of objects placed next to another
_BACKGROUND_CONTRAST = (0.15, 1.0)  # relative to the background at clutter 1
_MIN_VISIBLE_SHARE = 0.4  # of an object's area, after occlusion
_MIN_VISIBLE_PIXELS = 120
_PLACEMENT_TRIES = 12
_SUPERSAMPLING_BITS = 2  # 4 x 4 samples per pixel


@dataclass(frozen=True)
class Scene:
    """A painted scene.

    Attributes:
        image: uint8 (H, W, 3), RGB.
        instances: int16 (H, W), index into `shapes` of the object visible at each pixel, or `NO_OBJECT`.
        shapes: class of each object, from back to front.
    """

    image: npt.NDArray[np.uint8]
    instances: npt.NDArray[np.int16]
    shapes: list[str]


def paint_scene(rng: np.random.Generator, size: int, clutter: float = 1.0) -> Scene:
    """Paint a scene.

    At least 40 % of every object stays visible, despite occlusion and the image border.

    Args:
        rng: source of all randomness.
        size: longer side, in pixels.
        clutter: from 0 (two to four large objects, mostly separate, on a faint background) to 1 (four to ten objects of
            any size, overlapping, on a textured background with strands).
    """
    height, width = _frame(rng, size)
    canvas = _background(rng, height, width, clutter)
    instances = np.full((height, width), NO_OBJECT, np.int16)
    light = rng.uniform(0, 2 * np.pi)
    shapes: list[str] = []
    full_areas: list[float] = []
    fewest, most = (round(_between(ends, clutter)) for ends in (_FEWEST_OBJECTS, _MOST_OBJECTS))
    for _ in range(int(rng.integers(fewest, most + 1))):
        shape = str(rng.choice(SHAPES))
        for _ in range(_PLACEMENT_TRIES):
            contours = _draw_contours(rng, shape, instances, clutter)
            coverage, area = _coverage(contours, height, width)
            candidate = np.where(coverage >= 0.5, np.int16(len(shapes)), instances)
            if _all_visible(candidate, [*full_areas, area]):
                _paint_object(rng, canvas, coverage, light)
                instances = candidate
                shapes.append(shape)
                full_areas.append(area)
                break
    return Scene(_develop(rng, canvas), instances, shapes)


def _between(ends: tuple[float, float], clutter: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * clutter


def _frame(rng: np.random.Generator, size: int) -> tuple[int, int]:
    aspect = _ASPECTS[int(rng.integers(len(_ASPECTS)))]
    return (round(size / aspect), size) if aspect >= 1 else (size, round(size * aspect))


def _background(rng: np.random.Generator, height: int, width: int, clutter: float) -> Field:
    """Paint one or two textured surfaces with an uneven seam, unlabelled strands and uneven lighting."""
    short = min(height, width)
    canvas = texture(rng, height, width, short * rng.uniform(0.06, 0.4))
    if rng.random() < 0.65:
        y, x = np.mgrid[:height, :width].astype(np.float32)
        angle = rng.normal(0, 0.35)
        bend = short * rng.uniform(0, 0.3) * (fractal_noise(rng, height, width, short * 0.5) - 0.5)
        side = (y - height * rng.uniform(0.3, 0.7)) * np.cos(angle) + (x - width / 2) * np.sin(angle) + bend
        share = np.clip(side + 0.5, 0, 1)[..., None].astype(np.float32)
        canvas = canvas * (1 - share) + share * texture(rng, height, width, short * rng.uniform(0.04, 0.3))
    # Lower contrast than the objects, as in photographs, but any colour.
    contrast = np.float32(rng.uniform(0.45, 0.9) * _between(_BACKGROUND_CONTRAST, clutter))
    canvas = canvas.mean(axis=(0, 1)) + contrast * (canvas - canvas.mean(axis=(0, 1)))
    _strands(rng, canvas, round(_between(_MOST_STRANDS, clutter)))
    canvas = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.6, 1.6))
    light = 0.7 + 0.6 * fractal_noise(rng, height, width, float(short), octaves=1)
    lit: Field = canvas * light[..., None]
    return lit


def _strands(rng: np.random.Generator, canvas: Field, most: int) -> None:
    """Draw curved lines as unlabelled clutter; no object class is long and thin."""
    height, width = canvas.shape[:2]
    for _ in range(int(rng.integers(0, most + 1))):
        ends = rng.uniform(-0.2, 1.2, (4, 2)) * (width, height)
        t = np.linspace(0, 1, 48)[:, None]
        curve = (1 - t) ** 3 * ends[0] + 3 * t * (1 - t) ** 2 * ends[1] + 3 * t**2 * (1 - t) * ends[2] + t**3 * ends[3]
        points = np.round(curve * 16).astype(np.int32)
        colour = tuple(float(channel) for channel in rng.random(3))
        thickness = int(rng.integers(1, max(2, round(min(height, width) / 50)) + 1))
        cv2.polylines(canvas, [points], False, colour, thickness, cv2.LINE_8, 4)


def _draw_contours(
    rng: np.random.Generator, shape: str, instances: npt.NDArray[np.int16], clutter: float
) -> list[Points]:
    height, width = instances.shape
    reaches = [_between(ends, clutter) for ends in (_SMALLEST_REACH, _LARGEST_REACH)]
    reach = min(height, width) * float(np.exp(rng.uniform(*np.log(reaches))))
    centre = rng.uniform(0.02, 0.98, 2) * (width, height)
    taken = np.argwhere(instances != NO_OBJECT)
    if len(taken) and rng.random() < _between(_NEIGHBOURLY_SHARE, clutter):
        # Place it next to an existing object; with random placement, objects rarely overlap.
        near = taken[int(rng.integers(len(taken)))][::-1]
        angle = rng.uniform(0, 2 * np.pi)
        centre = near + reach * rng.uniform(0.4, 1.0) * np.array([np.cos(angle), np.sin(angle)])
    return place(outline(shape, rng), rng, reach, (float(centre[0]), float(centre[1])))


def _coverage(contours: list[Points], height: int, width: int) -> tuple[Field, float]:
    """Return the fraction of each pixel covered by the outline, float32 (H, W) in 0-1, and the total area in pixels."""
    scale = 1 << _SUPERSAMPLING_BITS
    # Integers are pixel centres in OpenCV but pixel edges here; hence the half. Positions have 8 fractional bits.
    points = [np.round((contour * scale - 0.5) * 256).astype(np.int32) for contour in contours]
    fine = np.zeros((height * scale, width * scale), np.uint8)
    cv2.fillPoly(fine, points, 255, cv2.LINE_8, 8)
    coverage: Field = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    signed = [float(cv2.contourArea(contour.astype(np.float32))) for contour in contours]
    return coverage, signed[0] - sum(signed[1:])


def _all_visible(instances: npt.NDArray[np.int16], full_areas: list[float]) -> bool:
    visible = np.bincount((instances + 1).ravel(), minlength=len(full_areas) + 1)[1:]
    enough = np.maximum(_MIN_VISIBLE_PIXELS, _MIN_VISIBLE_SHARE * np.asarray(full_areas))
    return bool((visible >= enough).all())


def _paint_object(rng: np.random.Generator, canvas: Field, coverage: Field, light: float) -> None:
    """Paint one object onto the canvas, in place: first its shadow, then its texture with rounded edges."""
    height, width = coverage.shape
    rows, columns = np.nonzero(coverage.any(axis=1))[0], np.nonzero(coverage.any(axis=0))[0]
    reach = float(max(np.ptp(rows), np.ptp(columns))) / 2 + 1
    # Work in a window around the object, with room for the shadow.
    margin = int(reach * 0.4) + 4
    top, bottom = max(rows[0] - margin, 0), min(rows[-1] + margin + 1, height)
    left, right = max(columns[0] - margin, 0), min(columns[-1] + margin + 1, width)
    window, alpha = canvas[top:bottom, left:right], coverage[top:bottom, left:right]

    direction = np.array([np.cos(light), np.sin(light)])
    offset = -direction * reach * rng.uniform(0.04, 0.2)
    move = np.array([[1, 0, offset[0]], [0, 1, offset[1]]])
    shadow = cv2.GaussianBlur(cv2.warpAffine(alpha, move, alpha.shape[::-1]), (0, 0), max(0.8, reach * 0.06))
    window *= 1 - np.float32(rng.uniform(0.25, 0.6)) * shadow[..., None]

    paint = texture(rng, bottom - top, right - left, max(5.0, reach * rng.uniform(0.2, 0.9)))
    window *= 1 - alpha[..., None]
    window += alpha[..., None] * np.clip(paint * _relief(rng, alpha, reach, direction)[..., None], 0, 1)


def _relief(rng: np.random.Generator, alpha: Field, reach: float, direction: npt.NDArray[np.float64]) -> Field:
    """Shade a surface whose rim slopes down to the outline: float32 (H, W) brightness around 1."""
    rim = max(1.5, reach * rng.uniform(0.06, 0.3))
    depth = cv2.distanceTransform((alpha >= 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    slope = cv2.GaussianBlur(np.sqrt(np.clip(depth / rim, 0, 1)), (0, 0), max(0.6, rim * 0.2)) * np.float32(rim)
    facing = cv2.Sobel(slope, cv2.CV_32F, 1, 0, scale=1 / 8) * direction[0]
    facing += cv2.Sobel(slope, cv2.CV_32F, 0, 1, scale=1 / 8) * direction[1]
    brightness: Field = np.clip(1 - np.float32(rng.uniform(0.2, 0.7)) * facing, 0.35, 1.8).astype(np.float32)
    return brightness


def _develop(rng: np.random.Generator, canvas: Field) -> npt.NDArray[np.uint8]:
    """Apply camera effects: vignetting, slight blur, colour cast and noise."""
    height, width = canvas.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    corners = 1 - np.float32(rng.uniform(0, 0.3)) * (x**2 + y**2) / 2
    canvas = cv2.GaussianBlur(canvas * corners[..., None], (0, 0), rng.uniform(0.3, 0.7))
    canvas = canvas * rng.uniform(0.92, 1.08, 3).astype(np.float32)
    grain = rng.standard_normal(canvas.shape, dtype=np.float32) * np.float32(rng.uniform(0.003, 0.02))
    developed: npt.NDArray[np.uint8] = (np.clip(canvas + grain, 0, 1) * 255 + 0.5).astype(np.uint8)
    return developed
