import hashlib
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


def _first(document: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = document["annotations"][0]
    return entry


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda document: document.pop("categories"), "lists no categories"),
        (lambda document: document.update(images={}), "'images' is an object, not a list"),
        (lambda document: document.update(annotations=[]), "contains no usable object"),
        (lambda document: _first(document).update(bbox=[1, 2]), r"annotation 1: bbox \[1, 2\]; it must be \[x, y, wi"),
        (lambda document: _first(document).update(bbox=None), "annotation 1: there is no bbox"),
        (lambda document: _first(document).update(bbox=[0, 1, float("nan"), 9]), "annotation 1: bbox .*not a finite"),
        (lambda document: _first(document).pop("category_id"), "annotation 1: category_id: it is missing"),
        (lambda document: _first(document).update(id=2), "two different annotations with id 2"),
        (lambda document: _first(document).update(iscrowd=7), "annotation 1: iscrowd: 7 is neither 0 nor 1"),
        (lambda document: document["images"][0].pop("file_name"), "image 1: file_name: it is missing"),
    ],
)
def test_what_cannot_be_read_is_one_line_with_its_id(draw: Draw, tmp_path: Path, change: Any, told: str) -> None:
    root = draw(tmp_path, train=2, val=1)
    _edit(root, change)
    with pytest.raises(UserError, match=f"instances_train2017.json .*{told}") as caught:
        open_coco(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "lost", "note"),
    [
        (lambda document: document["images"][0].pop("width"), 0, "computed 1 image sizes (image 1)"),
        (lambda document: _first(document).pop("area"), 0, "computed 1 areas (annotation 1)"),
        (lambda document: _first(document).update(image_id=99), 1, "dropped 1 annotations of images that are not"),
        (
            lambda document: _first(document).update(category_id=1),
            1,
            "dropped 1 annotations of categories that are not",
        ),
        (lambda document: _first(document).update(id=0), 0, "renumbered 5 annotation ids"),
        (lambda document: _first(document).update(ignore=1), 1, "'ignore', which count as crowds now (annotation 1)"),
        (
            lambda document: _first(document).update(segmentation=[]),
            1,
            "dropped 1 objects without a mask (annotation 1)",
        ),
        (lambda document: _first(document).update(bbox=[5, 5, 9, 0]), 1, "dropped 1 objects whose box has no width"),
    ],
)
def test_what_was_odd_is_in_the_notes(draw: Draw, tmp_path: Path, change: Any, lost: int, note: str) -> None:
    root = draw(tmp_path, train=2, val=1)
    clean = open_coco(root)
    assert (clean.train.instance_count, clean.notes) == (5, ())
    _edit(root, change)
    data = open_coco(root)
    assert data.train.instance_count == clean.train.instance_count - lost
    assert len(data.notes) == 1
    assert data.notes[0].startswith("instances_train2017.json: ")
    assert note in data.notes[0]
    assert data.masks == "polygon"


def test_boxes_alone_keep_their_objects(draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path, train=2, val=1)
    _edit(root, lambda document: _first(document).update(segmentation=[]))
    assert open_coco(root, masks=False).train.instance_count == 5
    assert open_coco(root).train.instance_count == 4


def test_the_digest_of_a_clean_file_is_of_its_own_bytes_and_of_another_that_of_the_copy(
    draw: Draw, tmp_path: Path
) -> None:
    root = draw(tmp_path / "a", train=2, val=1)
    file = root / "annotations" / "instances_train2017.json"
    clean = open_coco(root).train

    def expected(path: Path) -> str:
        names = sorted((root / "train2017").iterdir())
        listed = "\n".join(f"{name.name} {name.stat().st_size}" for name in names)
        return hashlib.sha256(path.read_bytes() + listed.encode()).hexdigest()

    assert clean.digest == expected(file)
    _edit(root, lambda document: document["annotations"].append({**_first(document), "id": 99, "bbox": [3, 3, 0, 3]}))
    without_effect = open_coco(root).train
    assert without_effect.instance_count == clean.instance_count
    assert without_effect.digest == expected(file), "Detectron2 never trained on a box without area"
    _edit(root, lambda document: _first(document).update(category_id="7"))
    assert open_coco(root).train.digest == expected(file), "the same id as text"
    _edit(root, lambda document: document["annotations"][-1].update(id=0, bbox=[3, 3, 3, 3]))
    changed = open_coco(root).train
    assert changed.digest == expected(changed.annotations) != expected(file)


def test_a_category_that_only_groups_others_is_no_class(draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path, train=4, val=4)

    def add_root(document: dict[str, Any]) -> None:
        for category in document["categories"]:
            category["supercategory"] = "shapes"
        document["categories"].insert(0, {"id": 0, "name": "shapes", "supercategory": "none"})

    for split in ("train", "val"):
        _edit(root, add_root, split)
    data = open_coco(root)
    assert data.class_names == ["rectangle", "ellipse", "triangle"]
    assert all("left out 1 categories that only group others (category 0 'shapes')" in note for note in data.notes)
    _edit(root, lambda document: _first(document).update(category_id=0))
    data = open_coco(root)
    assert data.train.classes == data.val.classes == {0: "shapes", 3: "rectangle", 7: "ellipse", 90: "triangle"}


def test_two_categories_of_one_name_are_refused(draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path, train=2, val=1)
    _edit(root, lambda document: document["categories"].append({**document["categories"][0], "id": 77}))
    with pytest.raises(UserError, match="has two categories named 'ellipse', with ids 7 and 77"):
        open_coco(root)


def test_text_that_is_no_json(draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path, train=1, val=1)
    (root / "annotations" / "instances_val2017.json").write_text("image,box")
    with pytest.raises(UserError, match=r"instances_val2017\.json is not a COCO JSON: line 1 column 1: no JSON object"):
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
