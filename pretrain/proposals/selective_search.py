"""Object proposals of one image: selective search, the filters and the random-score NMS of CCOP.

The constants are those of the authors' proposal script (CCOP, arXiv 2111.13651, section 4.1 and the released code).
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from . import fast_search, opencv_search
from .opencv_search import load_opencv

SearchMode = Literal["fast", "quality"]
SearchEngine = Literal["fast", "opencv"]
Boxes = npt.NDArray[np.float64]

MAX_ASPECT = 3  # a kept box has width / height strictly between 1/3 and 3
MIN_SIDE = 20  # and sqrt(width * height) strictly above this many pixels
NMS_IOU = 0.5  # a box with a higher IoU than this with a box of higher score is dropped
KEPT_BOXES = 50  # boxes an image, after the NMS


def search(
    image: npt.NDArray[np.uint8], mode: SearchMode = "fast", engine: SearchEngine = "fast"
) -> npt.NDArray[np.int32]:
    """All boxes that selective search finds.

    Args:
        image: uint8 (H, W, 3), RGB.
        mode: `fast` (the paper's) or `quality`: more colour spaces, starting segmentations and similarities.
        engine: `fast` (`fast_search`) or `opencv` (`opencv_search`).

    Returns:
        int32 (N, 4), x, y, width, height in pixels, all different, sorted by these four numbers.
    """
    return fast_search.search(image, mode) if engine == "fast" else opencv_search.search(image, mode)


def keep_objects(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Drop boxes that are too long (`MAX_ASPECT`) or too small (`MIN_SIDE`).

    Args:
        boxes: (N, 4) of any number type, x, y, width, height in pixels of the original image.

    Returns:
        The kept rows, in their order.
    """
    width, height = boxes[:, 2:].astype(np.float64).T
    # Products rather than quotients and roots: for whole pixels the two bounds are then exact.
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
        iou: a box goes when its IoU with a kept box is above this; at exactly this it stays.

    Returns:
        int64 indices of the kept boxes, by falling score.
    """
    if len(boxes) == 0:
        return np.zeros(0, dtype=np.int64)
    order = np.argsort(-scores, kind="stable")
    # OpenCV stores scores as float32, where random ones can collide; ranks up to 2**24 cannot.
    ranks = np.arange(len(boxes), 0, -1, dtype=np.float64)
    kept = load_opencv().dnn.NMSBoxes(boxes[order].astype(np.float64), ranks, 0.0, iou)
    return order[np.asarray(kept, dtype=np.int64).ravel()]


def image_generator(seed: int, image: str) -> np.random.Generator:
    """The random numbers of one image: they depend on the seed and the image's path, on no other image or worker.

    Args:
        seed: the run's seed.
        image: path relative to the image folder, POSIX.
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
    """Proposals of one image: search, filters, NMS with random scores, the first `keep` boxes.

    Args:
        image: uint8 (H, W, 3), RGB.
        generator: draws one score a box; see `image_generator`.
        mode: of the search.
        max_side: longest side in pixels of the copy that is searched; None searches the image as it is. Filters and
            NMS see boxes in pixels of the original either way.
        keep: most boxes returned.
        engine: of the search.

    Returns:
        float32 (N, 4), N <= keep, xyxy in absolute pixels of `image`, by falling (random) score.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    scale = np.ones(4)
    if max_side is not None and longest > max_side:
        cv2 = load_opencv()
        small = max(1, round(width * max_side / longest)), max(1, round(height * max_side / longest))
        image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
        scale = np.tile((width / small[0], height / small[1]), 2)
    boxes = keep_objects(search(image, mode, engine) * scale)
    kept = boxes[non_maximum_suppression(boxes, generator.random(len(boxes)))[:keep]]
    corners: npt.NDArray[np.float32] = np.hstack((kept[:, :2], kept[:, :2] + kept[:, 2:])).astype(np.float32)
    return corners
