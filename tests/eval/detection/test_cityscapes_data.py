import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ccop_eval.detection.cityscapes_data import convert, instance_classes
from ccop_eval.detection.data_sources import open_data
from PIL import Image
from pycocotools import mask as run_lengths

from ccop_hub.errors import UserError

WIDTH, HEIGHT = 64, 32
PERSON, CAR, CARAVAN, ROAD = 24, 26, 29, 7


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCOP_CACHE", str(tmp_path / "cache"))


def _polygon(left: int, top: int, right: int, bottom: int) -> list[list[int]]:
    """A filled rectangle, ends inclusive."""
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


OBJECTS = [
    ("road", _polygon(0, 0, 63, 31)),
    ("person", _polygon(4, 4, 11, 23)),
    ("car", _polygon(20, 8, 39, 19)),
    ("car", _polygon(30, 8, 49, 19)),
    ("persongroup", _polygon(52, 4, 59, 11)),
    ("caravan", _polygon(52, 20, 59, 27)),
]
"""In drawing order: the second car covers part of the first."""


def _write(root: Path, pictures: bool, splits: tuple[str, ...] = ("train", "val")) -> Path:
    for split in splits:
        image = root / "leftImg8bit" / split / "aachen" / "aachen_000000_000019_leftImg8bit.png"
        truth = root / "gtFine" / split / "aachen" / "aachen_000000_000019_gtFine"
        for path in (image, truth):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (WIDTH, HEIGHT)).save(image)
        objects: list[dict[str, Any]] = [{"label": label, "polygon": polygon} for label, polygon in OBJECTS]
        document = {"imgWidth": WIDTH, "imgHeight": HEIGHT, "objects": objects}
        Path(f"{truth}_polygons.json").write_text(json.dumps(document))
        if pictures:
            Image.fromarray(_picture().astype(np.uint16)).save(f"{truth}_instanceIds.png")
    return root


def _picture() -> np.ndarray:
    ids = {"road": ROAD, "person": PERSON * 1000, "persongroup": PERSON, "caravan": CARAVAN * 1000}
    picture = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
    cars = 0
    for label, ((left, top), _, (right, bottom), _) in OBJECTS:
        if label == "car":
            value, cars = CAR * 1000 + cars, cars + 1
        else:
            value = ids[label]
        picture[top : bottom + 1, left : right + 1] = value
    return picture


def test_the_eight_classes_are_those_with_scored_instances() -> None:
    names = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]
    assert list(instance_classes().values()) == names


@pytest.mark.parametrize("pictures", [True, False])
def test_masks_are_what_is_seen_of_each_object(tmp_path: Path, pictures: bool) -> None:
    document = convert(_write(tmp_path, pictures), "train")
    picture = _picture()
    expected = [
        (PERSON, 1, picture == PERSON),
        (PERSON, 0, picture == PERSON * 1000),
        (CAR, 0, picture == CAR * 1000),
        (CAR, 0, picture == CAR * 1000 + 1),
    ]
    assert len(document["annotations"]) == len(expected), "no road, and no caravan, which is not scored"
    for entry, (category, crowd, mask) in zip(document["annotations"], expected, strict=True):
        assert (entry["category_id"], entry["iscrowd"]) == (category, crowd)
        assert np.array_equal(run_lengths.decode(entry["segmentation"]).astype(bool), mask)
        assert entry["area"] == mask.sum()
    first_car = document["annotations"][2]
    assert first_car["bbox"] == [20, 8, 10, 12], "half of it is hidden"
    assert document["images"] == [
        {
            "id": 1,
            "file_name": "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
            "width": WIDTH,
            "height": HEIGHT,
        }
    ]


def test_the_layout_is_recognised_and_its_masks_are_bitmasks(tmp_path: Path) -> None:
    data = open_data(str(_write(tmp_path / "city", pictures=True)))
    assert (data.name, data.masks) == ("cityscapes", "bitmask")
    assert (data.train.instance_count, data.val.instance_count) == (3, 3), "crowds are not counted"


def test_an_image_without_annotation_is_named(tmp_path: Path) -> None:
    root = _write(tmp_path, pictures=False)
    next((root / "gtFine" / "val").rglob("*.json")).unlink()
    with pytest.raises(UserError, match=r"aachen_000000_000019_leftImg8bit\.png has no aachen_000000_000019_gtFine"):
        open_data(str(root))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda document: document.pop("objects"), "it has no list 'objects'"),
        (lambda document: document.update(imgWidth=None), "imgWidth and imgHeight are None and 32"),
        (lambda document: document.update(imgWidth=10**9, imgHeight=10**9), "imgWidth and imgHeight are 1000000000"),
        (lambda document: document["objects"][1].update(label="robot"), "object 1 has the label 'robot'"),
        (lambda document: document["objects"][1].update(polygon=[[1, 2]]), r"object 1 \(person\) has no polygon of"),
        (lambda document: document["objects"][1].update(polygon=[["a", 2]] * 3), r"object 1 \(person\) has no polyg"),
    ],
)
def test_a_wrong_annotation_names_file_and_object(tmp_path: Path, change: Any, told: str) -> None:
    root = _write(tmp_path, pictures=False)
    path = next((root / "gtFine" / "train").rglob("*.json"))
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=f"{path.name} is not a Cityscapes annotation: {told}"):
        open_data(str(root))


def test_an_annotation_that_is_no_json_is_named(tmp_path: Path) -> None:
    root = _write(tmp_path, pictures=False)
    next((root / "gtFine" / "val").rglob("*.json")).write_text("{")
    with pytest.raises(UserError, match=r"polygons\.json is not a Cityscapes annotation: it cannot be read as JSON"):
        open_data(str(root))


def test_a_picture_that_is_no_image_is_named(tmp_path: Path) -> None:
    root = _write(tmp_path, pictures=True)
    next((root / "gtFine" / "val").rglob("*.png")).write_text("text")
    with pytest.raises(UserError, match=r"instanceIds\.png"):
        open_data(str(root))


def test_a_split_without_images_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no images in .*leftImg8bit/val"):
        open_data(str(_write(tmp_path, pictures=True, splits=("train",))))
