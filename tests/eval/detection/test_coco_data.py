import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ccop_eval.detection.coco_data import open_coco

from ccop_hub.errors import UserError

Draw = Callable[..., Path]


def _edit(root: Path, change: Callable[[dict[str, Any]], None], split: str = "train") -> None:
    path = root / "annotations" / f"instances_{split}2017.json"
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def _pop(kind: str, key: str) -> Callable[[dict[str, Any]], None]:
    return lambda document: document[kind][0].pop(key)


def test_a_data_set_with_any_category_ids(draw: Draw, tmp_path: Path) -> None:
    data = open_coco(draw(tmp_path / "shapes", train=3, val=2))
    assert data.name == "shapes"
    assert data.class_names == ["rectangle", "ellipse", "triangle"]
    assert (data.train.image_count, data.val.image_count) == (3, 2)
    assert data.masks == "polygon"
    assert data.train.name != data.val.name


def test_names_and_digest_follow_the_content(draw: Draw, tmp_path: Path) -> None:
    first, same = open_coco(draw(tmp_path / "a")), open_coco(draw(tmp_path / "b"))
    assert first.digest == same.digest
    assert first.train.name != same.train.name
    _edit(tmp_path / "b", lambda document: document["annotations"].pop())
    changed = open_coco(tmp_path / "b")
    assert changed.digest != same.digest
    assert changed.train.name != same.train.name
    assert changed.val.name == same.val.name


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda document: document.pop("categories"), "no list 'categories'"),
        (lambda document: document.update(annotations=[]), "no list 'annotations' with entries"),
        (_pop("images", "width"), "an entry of 'images' has no 'width'"),
        (_pop("annotations", "area"), "an entry of 'annotations' has no 'area'"),
        (lambda document: document["annotations"][0].update(image_id=99), "of image 99, which is not listed"),
        (lambda document: document["annotations"][0].update(category_id=1), "has category 1, which is not listed"),
        (lambda document: document["annotations"][0].update(bbox=[1, 2]), "is not \\[x, y, width, height\\]"),
        (lambda document: document["annotations"][0].update(id=2), "occur twice"),
        (lambda document: document["annotations"][0].update(id=0), "has id 0, which pycocotools takes for none"),
        (lambda document: document["annotations"][0].update(ignore=1), "has 'ignore'"),
        (lambda document: document["annotations"][0].update(segmentation=[]), "have no 'segmentation'"),
    ],
)
def test_a_json_that_is_not_coco_is_told(draw: Draw, tmp_path: Path, change: Any, told: str) -> None:
    root = draw(tmp_path, train=2, val=1)
    _edit(root, change)
    with pytest.raises(UserError, match=f"instances_train2017.json is not COCO's instance format: .*{told}"):
        open_coco(root)


def test_two_categories_of_one_name_are_refused(draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path, train=2, val=1)
    _edit(root, lambda document: document["categories"].append({**document["categories"][0], "id": 77}))
    with pytest.raises(UserError, match="has two categories with one id or one name"):
        open_coco(root)


def test_text_that_is_no_json(draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path, train=1, val=1)
    (root / "annotations" / "instances_val2017.json").write_text("image,box")
    with pytest.raises(UserError, match="is not COCO's instance format: not JSON"):
        open_coco(root)


def test_missing_images_are_named(draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path, train=3, val=1)
    (root / "train2017" / "000002.png").unlink()
    with pytest.raises(UserError, match=r"1 images of .* are not in .*: 000002\.png;"):
        open_coco(root)


def test_a_missing_split_is_named(draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path, train=1, val=1)
    (root / "annotations" / "instances_val2017.json").unlink()
    with pytest.raises(UserError, match=r"instances_val2017\.json is missing"):
        open_coco(root)


def test_splits_with_different_classes_are_refused(draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path, train=1, val=1)
    _edit(root, lambda document: document["categories"][0].update(name="oval"), split="val")
    with pytest.raises(UserError, match=r"categories of .* differ"):
        open_coco(root)


def test_crowds_do_not_decide_the_mask_format_and_run_lengths_do(draw: Draw, tmp_path: Path) -> None:
    lengths = {"size": [128, 128], "counts": [0, 128 * 128]}

    def encode(document: dict[str, Any], crowd: int) -> None:
        document["annotations"][0].update(segmentation=lengths, iscrowd=crowd)

    root = draw(tmp_path, train=2, val=1)
    _edit(root, lambda document: encode(document, 1))
    data = open_coco(root)
    assert data.masks == "polygon"
    _edit(root, lambda document: encode(document, 0))
    assert open_coco(root).masks == "bitmask"
    assert open_coco(root).train.instance_count == data.train.instance_count + 1


def test_boxes_alone_have_no_masks(draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path, train=2, val=1)
    _edit(root, lambda document: [entry.pop("segmentation") for entry in document["annotations"]])
    assert open_coco(root).masks is None
