import json
from collections.abc import Callable
from pathlib import Path

import pytest
from ccop_eval.detection.coco_data import CocoData, open_coco
from ccop_eval.detection.data_sources import image_names, locate, open_data, take_part

from ccop_hub.errors import UserError

Draw = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCOP_CACHE", str(tmp_path / "cache"))
    for name in ("COCO_DIR", "DETECTRON2_DATASETS"):
        monkeypatch.delenv(name, raising=False)


def test_coco_is_found_by_either_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETECTRON2_DATASETS", "/datasets")
    assert locate("coco") == Path("/datasets/coco")
    assert locate("cityscapes") == Path("/datasets/cityscapes")
    assert locate("voc") == Path("/datasets")
    monkeypatch.setenv("COCO_DIR", "/elsewhere")
    assert locate("coco") == Path("/elsewhere")
    assert locate("./coco") == Path("coco")


@pytest.mark.parametrize("name", ["coco", "voc", "cityscapes"])
def test_a_name_without_its_variable_is_told(name: str) -> None:
    with pytest.raises(UserError, match=f"--data {name} .*environment variable .*DETECTRON2_DATASETS"):
        locate(name)


def test_a_folder_in_cocos_layout(draw: Draw, tmp_path: Path) -> None:
    root = draw(tmp_path / "shapes", train=2, val=1)
    assert open_data(str(root)) == open_coco(root)


def test_a_folder_in_no_known_layout_is_told_with_the_three(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of the .*layouts.*COCO's .*VOC's .*Cityscapes'"):
        open_data(str(tmp_path))


@pytest.fixture
def whole(draw: Draw, tmp_path: Path) -> CocoData:
    return open_coco(draw(tmp_path / "shapes", train=40, val=2))


def test_a_part_is_seeded_nested_and_leaves_the_scored_images_alone(whole: CocoData) -> None:
    parts = {percent: take_part(whole, percent, seed=3) for percent in (5, 10, 50)}
    names = {percent: set(image_names(part.train)) for percent, part in parts.items()}
    assert {percent: len(chosen) for percent, chosen in names.items()} == {5: 2, 10: 4, 50: 20}
    assert names[5] < names[10] < names[50] < set(image_names(whole.train))
    assert take_part(whole, 10, seed=3) == parts[10]
    assert set(image_names(take_part(whole, 10, seed=4).train)) != names[10]
    assert all(part.val == whole.val for part in parts.values())
    assert len({part.digest for part in (whole, *parts.values())}) == 4
    assert parts[10].name == "shapes (10%)"


def test_a_part_has_its_own_annotations_and_every_class(whole: CocoData) -> None:
    part = take_part(whole, 10, seed=0)
    document = json.loads(part.train.annotations.read_text())
    listed = {image["id"] for image in document["images"]}
    assert {entry["image_id"] for entry in document["annotations"]} <= listed
    everything = json.loads(whole.train.annotations.read_text())["annotations"]
    assert len(document["annotations"]) == sum(entry["image_id"] in listed for entry in everything)
    assert part.class_names == whole.class_names


def test_a_part_is_never_empty(draw: Draw, tmp_path: Path) -> None:
    small = open_coco(draw(tmp_path / "few", train=3, val=1))
    assert take_part(small, 1, seed=0).train.image_count == 1
