"""Write proposals in the authors' format.

The authors' script writes, and their training code reads, a COCO JSON with a single category:

    images       id, width, height, file_name; copied from the data set's instance JSON
    annotations  image_id, bbox [x, y, width, height] in pixels, category_id 1, id counted from 0
    categories   one: supercategory "RoI", id 1, name "RoI"

(OpenSelfSup CCOP, tools/selective_search.py and openselfsup/datasets/data_sources/coco_boxes.py.)
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TextIO

import numpy as np
import numpy.typing as npt

from ccop_hub.coco.reading import CocoImage

PROPOSAL_CATEGORY = {"supercategory": "RoI", "id": 1, "name": "RoI"}


def write_proposals(
    file: TextIO, images: Iterable[CocoImage], boxes: Iterable[tuple[int, npt.NDArray[np.float32]]]
) -> int:
    """Write proposals in the format of the authors' script, with constant memory use.

    Args:
        file: file open for writing.
        images: images with width and height.
        boxes: (image id, float32 (N, 4) xyxy in absolute pixels) for each image.

    Returns:
        Number of boxes written.
    """
    file.write('{"images": [')
    for place, image in enumerate(images):
        entry = {"id": image.id, "width": image.width, "height": image.height, "file_name": image.file_name}
        file.write((", " if place else "") + json.dumps(entry, ensure_ascii=False))
    file.write('], "annotations": [')
    number = 0
    for image_id, corners in boxes:
        wide = corners.astype(np.float64)  # makes width and height exact, so that the corners can be recovered
        for box in np.hstack((wide[:, :2], wide[:, 2:] - wide[:, :2])).tolist():
            found = {"image_id": image_id, "bbox": [_whole(value) for value in box], "category_id": 1, "id": number}
            file.write((", " if number else "") + json.dumps(found))
            number += 1
    file.write(f'], "categories": {json.dumps([PROPOSAL_CATEGORY])}}}')
    return number


def _whole(value: float) -> int | float:
    """Convert integral pixel positions to int, as in the authors' file."""
    return int(value) if value.is_integer() else value
