import json

import numpy as np
import pytest
from ccop_eval.segmentation.dataset import cityscapes_table, open_labelled_images
from PIL import Image

from ccop_hub.errors import UserError


def make_folder(root, ids, image_size=(8, 6)):
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", image_size).save(root / split / "images" / "a.jpg")
        Image.fromarray(np.array(ids, dtype=np.uint8)).save(root / split / "labels" / "a.png")
    return root


def test_cityscapes_labels_are_the_official_table(cityscapes):
    table = cityscapes_table()
    assert len(table.classes) == 19
    assert (table.classes[0], table.ids[0]) == ("road", 7)
    assert (table.classes[18], table.ids[18]) == ("bicycle", 33)
    lookup = table.lookup()
    assert lookup[26] == 13
    assert {int(lookup[label]) for label in (0, 4, 9, 29, 255)} == {255}
    data = open_labelled_images(cityscapes, [])
    assert data.cityscapes
    assert (len(data.train.images), len(data.val.images)) == (4, 3)
    for wrong in ({"ignore": [3]}, {"label_map": ["255:1"]}):
        with pytest.raises(UserError, match="do not apply to Cityscapes"):
            open_labelled_images(cityscapes, **wrong)


def test_classes_of_a_folder_without_names_are_its_ids(tmp_path):
    data = open_labelled_images(make_folder(tmp_path, [[3, 5, 11, 255]], (4, 1)), ignore=[11])
    assert data.table.ids == [3, 5]
    _, label = data.read(data.val, 0)
    assert label.tolist() == [[0, 1, 255, 255]]


def test_mistakes_in_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match="is not a segmentation data set"):
        open_labelled_images(tmp_path, [])
    with pytest.raises(UserError, match=r"a\.png is 2x1, its image 8x6"):
        open_labelled_images(make_folder(tmp_path / "size", [[0, 1]]), [])
    root = make_folder(tmp_path / "names", [[0, 1]], (2, 1))
    (root / "classes.txt").write_text("only\n")
    with pytest.raises(UserError, match=r"has id 1, .* names 1 classes"):
        open_labelled_images(root, [])
    (root / "val" / "labels" / "a.png").unlink()
    with pytest.raises(UserError, match="have no label"):
        open_labelled_images(root, [])
    colour = make_folder(tmp_path / "colour", np.tile([128, 0, 0], (6, 8, 1)))
    with pytest.raises(UserError, match="not a single channel of"):
        open_labelled_images(colour, [])


@pytest.mark.parametrize("suffix", [".PNG", ".tif", ".bmp"])
def test_labels_may_have_another_suffix(tmp_path, suffix):
    root = make_folder(tmp_path, [[3, 5]], (2, 1))
    label = root / "train" / "labels" / "a.png"
    Image.open(label).save(label.with_suffix(suffix))
    label.unlink()
    data = open_labelled_images(root)
    assert data.train.labels == [label.with_suffix(suffix)]
    assert data.read(data.train, 0)[1].tolist() == [[0, 1]]
    Image.new("RGB", (2, 1)).save(label.with_suffix(".jpg"))
    with pytest.raises(UserError, match=r"a\.jpg has several labels"):
        open_labelled_images(root)
    Image.fromarray(np.array([[5, 3]], dtype=np.uint8)).save(label)
    data = open_labelled_images(root)
    assert data.read(data.train, 0)[1].tolist() == [[1, 0]], "a PNG wins over others"


def test_labels_that_are_missing_or_shared_are_named(tmp_path):
    root = make_folder(tmp_path, [[0, 1]], (2, 1))
    label = root / "train" / "labels" / "a.png"
    label.rename(label.with_name("a_mask.png"))
    with pytest.raises(UserError, match=r"1 of 1 images .*a\.png \(but a_mask\.png is there\)"):
        open_labelled_images(root)
    label.symlink_to("elsewhere.png")
    with pytest.raises(UserError, match=r"a\.png: a link to elsewhere\.png, which does not exist"):
        open_labelled_images(root)
    label.unlink()
    label.with_name("a_mask.png").rename(label)
    Image.new("RGB", (2, 1)).save(root / "train" / "images" / "a.png")
    with pytest.raises(UserError, match=r"a\.jpg and .*a\.png have the same label"):
        open_labelled_images(root)


def test_split_without_a_labelled_pixel_is_refused(tmp_path):
    root = make_folder(tmp_path, [[0, 1, 4]], (3, 1))
    Image.fromarray(np.array([[255, 4, 4]], dtype=np.uint8)).save(root / "val" / "labels" / "a.png")
    assert open_labelled_images(root).table.ids == [0, 1, 4]
    with pytest.raises(UserError, match=r"all pixels of the labels in .*val/labels are ignored"):
        open_labelled_images(root, ignore=[4])


def test_semantic_folder_of_a_coco_set(tmp_path, scenes):
    for split in ("train", "val"):
        (tmp_path / "semantic").mkdir(exist_ok=True)
        (tmp_path / f"{split}2017").symlink_to(scenes / "learnable" / split / "images")
        (tmp_path / "semantic" / f"{split}2017").symlink_to(scenes / "learnable" / split / "labels")
    (tmp_path / "semantic" / "classes.txt").write_text("ground\nobject\n")
    data = open_labelled_images(tmp_path, [])
    assert data.table.classes == ["ground", "object"]
    assert len(data.train.images) == 30
    assert json.dumps(data.table.ids) == "[0, 1]"


def test_mapped_values_are_read_as_their_ids(tmp_path):
    data = open_labelled_images(make_folder(tmp_path, [[0, 255, 7, 255]], (4, 1)), ignore=[7], label_map=["255:1"])
    assert data.table.ids == [0, 1]
    _, label = data.read(data.train, 0)
    assert label.tolist() == [[0, 1, 255, 1]]
