"""Object proposals for one image: selective search, followed by CCOP's filters and random-score NMS.

The constants are from the authors' proposal script (CCOP, arXiv 2111.13651, section 4.1 and the released code).
"""

from __future__ import annotations

import hashlib
import math
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import fast_search, opencv_search
from .opencv_search import load_opencv

SearchMode = Literal["fast", "quality"]
SearchEngine = Literal["fast", "opencv"]
Boxes = npt.NDArray[np.float64]

MAX_ASPECT = 3  # boxes must have width / height strictly between 1/3 and 3
MIN_SIDE = 20  # boxes must have sqrt(width * height) strictly above this, in pixels
NMS_IOU = 0.5  # NMS drops a box whose IoU with a higher-scoring box is above this
KEPT_BOXES = 50  # per image, after NMS

SEARCHED_PIXELS = 1 << 24
"""Largest size, in pixels, at which an image is searched. The search takes 70 bytes and one to two microseconds per
pixel: 1.1 GiB at this size, but 6 GB and more than 90 s for an image of 89 megapixels."""


def search(
    image: npt.NDArray[np.uint8], mode: SearchMode = "fast", engine: SearchEngine = "fast"
) -> npt.NDArray[np.int32]:
    """Run selective search on an image.

    Args:
        image: uint8 (H, W, 3), RGB.
        mode: `fast` (as in the paper) or `quality`, which uses more colour spaces, segmentations and similarities.
        engine: `fast` (`fast_search`) or `opencv` (`opencv_search`).

    Returns:
        int32 (N, 4), unique x, y, width, height in pixels, sorted by these four numbers.
    """
    return fast_search.search(image, mode) if engine == "fast" else opencv_search.search(image, mode)


def keep_objects(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Drop boxes that are too elongated (`MAX_ASPECT`) or too small (`MIN_SIDE`).

    Args:
        boxes: (N, 4) of any numeric type, x, y, width, height in pixels of the original image.

    Returns:
        The remaining rows, in order.
    """
    width, height = boxes[:, 2:].astype(np.float64).T
    # Multiply instead of dividing and taking roots, so that both bounds are exact for integers.
    shaped = (width < MAX_ASPECT * height) & (height < MAX_ASPECT * width)
    kept: npt.NDArray[Any] = boxes[shaped & (width * height > MIN_SIDE**2)]
    return kept


def non_maximum_suppression(
    boxes: npt.NDArray[Any], scores: npt.NDArray[np.float64], iou: float = NMS_IOU
) -> npt.NDArray[np.int64]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4), x, y, width, height in pixels.
        scores: (N,); equal scores keep the order of `boxes`.
        iou: a box is dropped if its IoU with a kept box is strictly above this.

    Returns:
        int64 indices of the kept boxes, by descending score.
    """
    if len(boxes) == 0:
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(-scores, kind="stable")
    # OpenCV stores scores as float32, in which random values can collide; ranks up to 2**24 cannot.
    ranks = np.arange(len(boxes), 0, -1, dtype=np.float64)
    kept = load_opencv().dnn.NMSBoxes(boxes[order].astype(np.float64), ranks, 0.0, iou)
    return order[np.asarray(kept, dtype=np.int64).ravel()]


def image_generator(seed: int, image: str) -> np.random.Generator:
    """Create the random generator for one image, which depends only on the seed and the image's path.

    Args:
        seed: seed of the run.
        image: POSIX path relative to the image folder.
    """
    digest = hashlib.sha256(f"{seed}:{image}".encode("utf-8", "surrogateescape")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def propose(
    image: npt.NDArray[np.uint8],
    generator: np.random.Generator,
    mode: SearchMode = "fast",
    max_side: int | None = None,
    keep: int = KEPT_BOXES,
    engine: SearchEngine = "fast",
) -> npt.NDArray[np.float32]:
    """Compute the proposals of an image: search, filters, NMS with random scores, then the first `keep` boxes.

    Args:
        image: uint8 (H, W, 3), RGB.
        generator: draws one score per box; see `image_generator`.
        mode: search mode, see `search`.
        max_side: resize the image for the search so that its longer side is at most this many pixels; None searches at
            full size, up to `SEARCHED_PIXELS`. Filters and NMS always work in pixels of the original.
        keep: maximum number of boxes.
        engine: search engine, see `search`.

    Returns:
        float32 (N, 4), N <= keep, xyxy in absolute pixels of `image`, by descending (random) score.
    """
    height, width = image.shape[:2]
    scale = np.ones(4)
    small = searched_size(width, height, max_side)
    if small != (width, height):
        cv2 = load_opencv()
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        scale = np.tile((width / small[0], height / small[1]), 2)
    boxes = keep_objects(search(image, mode, engine) * scale)
    kept = boxes[non_maximum_suppression(boxes, generator.random(len(boxes)))[:keep]]
    corners: npt.NDArray[np.float32] = np.hstack((kept[:, :2], kept[:, :2] + kept[:, 2:])).astype(np.float32)
    return corners


def searched_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Return the width and height at which an image is searched; see `propose`."""
    longest = max(width, height)
    if max_side is not None and longest > max_side:
        width, height = max(1, round(width * max_side / longest)), max(1, round(height * max_side / longest))
    if width * height > SEARCHED_PIXELS:
        factor = math.sqrt(SEARCHED_PIXELS / (width * height))
        # Where one side would be less than a pixel, the other could still be too long.
        width, height = (min(max(1, int(side * factor)), SEARCHED_PIXELS) for side in (width, height))
    return width, height
