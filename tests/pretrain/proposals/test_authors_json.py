import io
import json

import numpy as np
from ccop_pretrain.proposals.authors_json import write_proposals

from ccop_hub.coco.reading import CocoImage


def test_proposals_are_written_one_by_one() -> None:
    file = io.StringIO()
    images = [CocoImage(3, "a.jpg", 10, 20), CocoImage(1, "b.jpg", 30, 40)]
    boxes = [(3, np.array([[0, 1, 2, 4], [0.5, 0, 2, 2]], np.float32)), (1, np.zeros((0, 4), np.float32))]
    assert write_proposals(file, images, iter(boxes)) == 2
    assert json.loads(file.getvalue()) == {
        "images": [
            {"id": 3, "width": 10, "height": 20, "file_name": "a.jpg"},
            {"id": 1, "width": 30, "height": 40, "file_name": "b.jpg"},
        ],
        "annotations": [
            {"image_id": 3, "bbox": [0, 1, 2, 3], "category_id": 1, "id": 0},
            {"image_id": 3, "bbox": [0.5, 0, 1.5, 2], "category_id": 1, "id": 1},
        ],
        "categories": [{"supercategory": "RoI", "id": 1, "name": "RoI"}],
    }
