import json

import pytest
from ccop_eval.region_probe.coco_boxes import BoxedImages, read_splits
from PIL import Image

from ccop_hub.errors import UserError


def test_crowds_and_slivers_are_left_out_and_boxes_clipped(tmp_path):
    (tmp_path / "val2017").mkdir()
    (tmp_path / "annotations").mkdir()
    Image.new("RGB", (20, 10)).save(tmp_path / "val2017" / "a.png")
    rows = [([2, 3, 100, 4], 0), ([0, 0, 5, 5], 1), ([1, 1, 0.5, 5], 0), ([-4, 0, 8, 8], 0)]
    content = {
        "images": [{"id": 4, "file_name": "a.png", "width": 20, "height": 10}],
        "categories": [{"id": 9, "name": "thing"}],
        "annotations": [
            {"image_id": 4, "category_id": 9, "bbox": box, "area": 1.0, "iscrowd": crowd} for box, crowd in rows
        ],
    }
    (tmp_path / "annotations" / "instances_val2017.json").write_text(json.dumps(content))
    split = BoxedImages.read(tmp_path, "val")
    assert split.boxes[0].tolist() == [[2, 3, 20, 7], [0, 0, 4, 8]]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "give --data a COCO folder"),
        ("{", "is not a COCO JSON: line 1 column 2"),
        ('{"images": []}', "lists no images"),
        ('{"images": [{"id": 1, "file_name": "a.png"}], "categories": []}', "lists no categories"),
    ],
)
def test_json_that_is_not_coco_is_one_line(tmp_path, content, says):
    (tmp_path / "annotations").mkdir()
    if content is not None:
        (tmp_path / "annotations" / "instances_train2017.json").write_text(content)
    with pytest.raises(UserError, match=says):
        BoxedImages.read(tmp_path, "train")


def test_a_category_that_groups_others_is_a_class_if_one_split_annotates_it(tmp_path):
    (tmp_path / "annotations").mkdir()
    for split in ("train", "val"):
        (tmp_path / f"{split}2017").mkdir()
        Image.new("RGB", (20, 10)).save(tmp_path / f"{split}2017" / "a.png")
    categories = [{"id": 0, "name": "pets", "supercategory": "none"}, {"id": 1, "name": "cat", "supercategory": "pets"}]

    def write(split, category):
        content = {
            "images": [{"id": 4, "file_name": "a.png", "width": 20, "height": 10}],
            "categories": categories,
            "annotations": [{"id": 1, "image_id": 4, "category_id": category, "bbox": [1, 2, 3, 4]}],
        }
        (tmp_path / "annotations" / f"instances_{split}2017.json").write_text(json.dumps(content))

    write("train", 1)
    write("val", 1)
    assert [split.classes for split in read_splits(tmp_path)] == [["cat"], ["cat"]]
    write("train", 0)
    train, val = read_splits(tmp_path)
    assert train.classes == val.classes == ["pets", "cat"]
    assert (train.labels[0].tolist(), val.labels[0].tolist()) == ([0], [1])
