"""Convert binary masks to COCO polygons, including holes."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]

# Contours pass through sample centres, so with 4 samples per pixel they are 1/8 pixel inside the true edge.
_SAMPLES = 4
_TOLERANCE = 0.3  # maximum deviation of a simplified contour, in pixels


def mask_to_polygons(mask: npt.NDArray[np.bool_]) -> list[list[float]]:
    """Trace the outlines of a mask.

    COCO polygons cannot have holes, so each hole is joined to its outline by a slit of zero width, which a scan-line
    fill (as in pycocotools and Detectron2) crosses twice.

    Args:
        mask: bool (H, W).

    Returns:
        One flat list x0, y0, x1, y1, ... per connected component, in pixels, where pixel (0, 0) spans 0 to 1.
    """
    padded = np.pad(mask.astype(np.uint8), 1)
    fine = padded.repeat(_SAMPLES, axis=0).repeat(_SAMPLES, axis=1)
    contours, hierarchy = cv2.findContours(fine, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return []
    polygons = []
    for index, (_, _, first_hole, parent) in enumerate(hierarchy[0]):
        if parent != -1:
            continue
        polygon = _simplify(contours[index])
        hole = first_hole
        while hole != -1:
            polygon = _join(polygon, _simplify(contours[hole]))
            hole = hierarchy[0][hole][0]
        polygons.append([round(float(value), 2) for value in polygon.ravel()])
    return polygons


def _simplify(contour: npt.NDArray[np.int32]) -> Points:
    simple = cv2.approxPolyDP(contour, _TOLERANCE * _SAMPLES, closed=True)
    kept = simple if len(simple) >= 3 else contour
    points: Points = (kept[:, 0].astype(np.float64) + 0.5) / _SAMPLES - 1
    return points


def _join(polygon: Points, hole: Points) -> Points:
    """Connect a hole to the nearest vertex of the polygon by a zero-width slit."""
    distances = ((polygon[:, None] - hole[None]) ** 2).sum(axis=-1)
    start, entry = np.unravel_index(int(distances.argmin()), distances.shape)
    around = np.concatenate((hole[entry:], hole[: entry + 1]))
    return np.concatenate((polygon[: start + 1], around, polygon[start:]))
