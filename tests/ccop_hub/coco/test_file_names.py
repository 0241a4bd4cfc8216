"""Names of images as other programs and platforms write them."""

import unicodedata

import pytest

from ccop_hub.coco.file_names import candidates, file_in, find_file, image_name
from ccop_hub.coco.values import WrongValueError

COMPOSED = "b\u00e4r.jpg"
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)


@pytest.mark.parametrize(
    ("listed", "on_disk"),
    [
        ("a.jpg", "a.JPG"),
        ("a.JPG", "a.jpg"),
        ("C:\\x\\a.JPEG", "x/a.jpeg"),
        (COMPOSED, DECOMPOSED),
        (DECOMPOSED, COMPOSED),
        ("old/" + COMPOSED, DECOMPOSED.replace(".jpg", ".JPG")),
        ("http://host/train2017/a%20b.jpg", "a b.jpg"),
    ],
)
def test_names_are_found_in_other_spellings(tmp_path, listed, on_disk):
    (tmp_path / on_disk).parent.mkdir(exist_ok=True)
    (tmp_path / on_disk).touch()
    assert find_file(listed, file_in(tmp_path)) == on_disk


def test_the_literal_name_wins(tmp_path):
    for name in ("a.jpg", "a.JPG", COMPOSED, DECOMPOSED):
        (tmp_path / name).touch()
    for name in ("a.jpg", "a.JPG", COMPOSED, DECOMPOSED):
        assert find_file(name, file_in(tmp_path)) == name
    (tmp_path / "x").mkdir()
    assert find_file("x/a.jpg", file_in(tmp_path)) == "a.jpg"


def test_a_name_of_many_folders_takes_few_lookups():
    assert len(list(candidates("a/" * 2000 + "b.jpg"))) < 200


def test_an_entry_without_a_name_has_that_of_its_address():
    url = "http://images.cocodataset.org/train2017/000000391895.jpg"
    assert image_name({"coco_url": url}) == "train2017/000000391895.jpg"
    assert image_name({"file_name": "a.jpg", "coco_url": url}) == "a.jpg"
    for entry in ({}, {"coco_url": ""}, {"coco_url": 7}, {"coco_url": "http://host"}):
        with pytest.raises(WrongValueError, match="it is missing"):
            image_name(entry)
