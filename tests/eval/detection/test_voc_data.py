import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ccop_eval.detection.data_sources import open_data
from ccop_eval.detection.voc_data import CLASSES, convert

from ccop_hub.errors import UserError

WriteVoc = Callable[[Path], Path]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCOP_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("above", ["", "VOCdevkit"])
def test_vocs_own_layout_is_read(write_voc: WriteVoc, tmp_path: Path, above: str) -> None:
    write_voc(tmp_path / "voc" / above)
    data = open_data(str(tmp_path / "voc"))
    assert (data.name, data.masks) == ("voc07+12", None)
    assert data.class_names == list(CLASSES)
    assert (data.train.image_count, data.train.instance_count) == (2, 3)
    assert (data.val.image_count, data.val.instance_count) == (1, 1)
    assert not any(path.suffix == ".json" for path in (tmp_path / "voc").rglob("*")), "the data set stays as it was"


def test_boxes_count_from_0_and_difficult_objects_keep_their_mark(write_voc: WriteVoc, tmp_path: Path) -> None:
    document = convert(write_voc(tmp_path), "train")
    assert [image["file_name"] for image in document["images"]] == [
        "VOC2007/JPEGImages/000001.jpg",
        "VOC2012/JPEGImages/2008_000002.jpg",
    ]
    whole, cat, _ = document["annotations"]
    assert whole["bbox"] == [0, 0, 64, 48], "all of the picture"
    assert cat["bbox"] == [10, 20, 20, 20]
    assert (whole["difficult"], cat["difficult"]) == (0, 1)
    assert CLASSES[cat["category_id"] - 1] == "cat"
    assert [entry["id"] for entry in document["annotations"]] == [1, 2, 3]


def test_boxes_are_those_that_detectron2_reads(
    write_voc: WriteVoc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ccop_eval.detection.engine import load_engine

    load_engine()
    import numpy as np
    from detectron2.data.datasets.pascal_voc import load_voc_instances
    from detectron2.structures import BoxMode

    monkeypatch.setattr(np, "str", str, raising=False)  # removed in NumPy 1.24, but Detectron2's loader uses it
    root = write_voc(tmp_path)
    (root / "VOC2007" / "ImageSets" / "Main" / "trainval.txt").write_text("000001\n000001\n")
    theirs = load_voc_instances(str(root / "VOC2007"), "trainval", CLASSES)[0]["annotations"]
    ours = convert(root, "train")["annotations"][:2]
    for one, other in zip(ours, theirs, strict=True):
        assert BoxMode.convert(one["bbox"], BoxMode.XYWH_ABS, BoxMode.XYXY_ABS) == other["bbox"]
        assert one["category_id"] == other["category_id"] + 1


def test_the_conversion_is_kept_and_made_again_when_the_data_change(write_voc: WriteVoc, tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    first = open_data(str(root))
    assert open_data(str(root)) == first
    path = root / "VOC2007" / "Annotations" / "000003.xml"
    path.write_text(path.read_text().replace("tvmonitor", "car"))
    changed = open_data(str(root))
    assert changed.val.digest != first.val.digest
    document = json.loads(changed.val.annotations.read_text())
    assert CLASSES[document["annotations"][0]["category_id"] - 1] == "car"


@pytest.mark.parametrize(
    ("path", "content", "told"),
    [
        ("VOC2012/ImageSets/Main/trainval.txt", None, r"trainval\.txt is missing: VOC07\+12 needs"),
        ("VOC2007/Annotations/000003.xml", None, r"000003\.xml is missing"),
        ("VOC2007/JPEGImages/000003.jpg", None, r"1 images of .* are not in"),
        ("VOC2007/Annotations/000003.xml", "<annotation>", r"000003\.xml is not XML"),
        ("VOC2007/Annotations/000003.xml", "<annotation/>", "is not a VOC annotation: it has no size/width"),
        ("VOC2007/Annotations/000003.xml", "", r"000003\.xml is not XML"),
        ("VOC2007/Annotations/000003.xml", '<?xml version="1.0" encoding="x"?><a/>', r"000003\.xml is not XML"),
    ],
)
def test_what_is_missing_is_named(
    write_voc: WriteVoc, tmp_path: Path, path: str, content: str | None, told: str
) -> None:
    root = write_voc(tmp_path / "voc")
    if content is None:
        (root / path).unlink()
    else:
        (root / path).write_text(content)
    with pytest.raises(UserError, match=told):
        open_data(str(root))


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("<xmax>33</xmax>", "<xmax>1</xmax>", r"3\.xml: object 1 \(tvmonitor\) has a box without area, xmin 2 ymin 3"),
        ("<xmax>33</xmax>", "<xmax>wide</xmax>", r"000003\.xml is not .*: bndbox/xmax is 'wide', not a number"),
        ("<xmax>33</xmax>", "<xmax>nan</xmax>", "bndbox/xmax is 'nan', not a number"),
        ("<xmax>33</xmax>", "", "it has no bndbox/xmax"),
        ("<width>64</width>", "<width>65</width>", r"000003\.jpg has 64 x 48 pixels, but .* lists it with 65 x 48"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_named(write_voc: WriteVoc, tmp_path: Path, before: str, after: str, told: str) -> None:
    root = write_voc(tmp_path / "voc")
    path = root / "VOC2007" / "Annotations" / "000003.xml"
    path.write_text(path.read_text().replace(before, after, 1))
    with pytest.raises(UserError, match=told):
        open_data(str(root))


def test_a_class_that_voc_has_not_is_told(write_voc: WriteVoc, tmp_path: Path) -> None:
    root = write_voc(tmp_path / "voc")
    path = root / "VOC2007" / "Annotations" / "000003.xml"
    path.write_text(path.read_text().replace("tvmonitor", "robot"))
    with pytest.raises(UserError, match="an object of class 'robot'"):
        open_data(str(root))
