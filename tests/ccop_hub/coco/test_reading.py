import json
import tracemalloc
from pathlib import Path

import pytest

from ccop_hub.coco.findings import Findings, Kind
from ccop_hub.coco.reading import CocoBox, CocoImage, read_boxes, read_images
from ccop_hub.errors import UserError


def test_images_and_boxes_are_read_from_any_place_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    content = {
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "bbox": [1, 2.5, 3, 4], "segmentation": [[1, 2, 3, 4, 5, 6]]},
            {"id": 2, "image_id": 7, "category_id": 3, "bbox": [0, 0, 0, 0], "iscrowd": 1},
        ],
        "info": {"annotations": "none"},
        "images": [{"id": 7, "file_name": "é.jpg", "width": 6, "height": 8.0}, {"id": 8, "file_name": "b.jpg"}],
    }
    path.write_text(json.dumps(content))
    assert list(read_images(path)) == [CocoImage(7, "é.jpg", 6, 8), CocoImage(8, "b.jpg", None, None)]
    assert list(read_boxes(path, Findings())) == [CocoBox(7, (1, 2.5, 3, 4))]


@pytest.mark.parametrize("box", ["[1, 2, 3]", "[1, 2, 3, 1e400]", "[1, 2, NaN, 4]", '"text"', "null"])
def test_a_box_that_is_none_is_named(tmp_path: Path, box: str) -> None:
    path = tmp_path / "instances.json"
    path.write_text(f'{{"annotations": [{{"id": 5, "image_id": 1, "category_id": 1, "bbox": {box}}}]}}')
    with pytest.raises(UserError, match=r"instances\.json is not a COCO JSON: annotation 5: .*bbox"):
        list(read_boxes(path, Findings()))


def test_boxes_without_area_are_counted_and_negative_sides_turned(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    boxes = [[1, 2, 0, 4], [9, 8, -3, "4"], [1, 2, 3, 0.0]]
    entries = [{"id": number, "image_id": "a", "bbox": box, "iscrowd": "0"} for number, box in enumerate(boxes)]
    path.write_bytes(json.dumps({"annotations": entries}).encode("utf-16"))
    findings = Findings()
    assert list(read_boxes(path, findings)) == [CocoBox("a", (6, 8, 3, 4))]
    assert (findings.count(Kind.BOX_WITHOUT_AREA), findings.count(Kind.NEGATIVE_SIDE)) == (2, 1)


def test_reading_takes_no_more_memory_for_a_longer_file(tmp_path: Path) -> None:
    def peak(boxes: int) -> int:
        path = tmp_path / f"{boxes}.json"
        entries = ({"image_id": number // 50, "bbox": [1, 2, 3, 4], "category_id": 1} for number in range(boxes))
        path.write_text('{"annotations": [' + ", ".join(map(json.dumps, entries)) + "]}")
        tracemalloc.start()
        assert sum(1 for _ in read_boxes(path, Findings())) == boxes
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    # Forty thousand more boxes take 2.5 MB as text, but 20 MB as dictionaries.
    assert peak(50_000) - peak(10_000) < 1_000_000
