import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ccop_hub.coco import listing, objects
from ccop_hub.coco.findings import Kind
from ccop_hub.coco.normalised import NormalisedCoco, normalise
from ccop_hub.errors import UserError

WIDTH, HEIGHT = 40, 30
Document = dict[str, Any]
Change = Callable[[Document], Any]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three images, 1.png to 3.png."""
    monkeypatch.setenv("CCOP_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (1, 2, 3):
        Image.new("RGB", (WIDTH, HEIGHT)).save(folder / f"{number}.png")
    return folder


def document() -> Document:
    """Image 3 has no objects."""
    return {
        "images": [
            {"id": number, "file_name": f"{number}.png", "width": WIDTH, "height": HEIGHT} for number in (1, 2, 3)
        ],
        "annotations": [
            {
                "id": 10 + number,
                "image_id": 1 + number % 2,
                "category_id": 5 + number % 2,
                "bbox": [number, 2, 10, 8],
                "area": 40.0,
                "iscrowd": 0,
                "segmentation": [[number, 2, number + 10, 2, number + 10, 10]],
            }
            for number in range(4)
        ],
        "categories": [{"id": 5, "name": "cat"}, {"id": 6, "name": "dog"}],
    }


def write(folder: Path, content: Document) -> Path:
    path = folder.parent / "instances.json"
    path.write_text(json.dumps(content))
    return path


def run(folder: Path, change: Change, **options: Any) -> tuple[NormalisedCoco, Document]:
    content = document()
    change(content)
    normalised = normalise(write(folder, content), folder, **options)
    return normalised, json.loads(normalised.copy.read_text())


def annotation(content: Document, place: int = 0) -> dict[str, Any]:
    entry: dict[str, Any] = content["annotations"][place]
    return entry


def test_a_clean_file_keeps_its_entries(folder: Path) -> None:
    normalised, copied = run(folder, lambda content: None)
    assert copied == {"info": {}, **document()}
    assert (normalised.images, normalised.objects, normalised.masked, normalised.maskless) == (3, 4, 4, 0)
    assert (normalised.masks, normalised.classes, normalised.summary) == ("polygon", {5: "cat", 6: "dog"}, "")
    assert normalised.content() == normalised.source
    assert [name for name, _ in normalised.files] == ["1.png", "2.png", "3.png"]


def _rename(content: Document, name: str) -> None:
    content["images"][0]["file_name"] = name


def _text_ids(content: Document) -> None:
    for entry in content["images"]:
        entry["id"] = f"image {entry['id']}"
    for entry in content["categories"]:
        entry["id"] = entry["name"]
    for entry in content["annotations"]:
        entry |= {"id": f"object {entry['id']}", "image_id": f"image {entry['image_id']}"}
        entry["category_id"] = {5: "cat", 6: "dog"}[entry["category_id"]]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda content: annotation(content).pop("iscrowd"), Kind.CROWD_FLAG),
        (lambda content: annotation(content).update(iscrowd=None), Kind.CROWD_FLAG),
        (lambda content: annotation(content).update(iscrowd="0"), Kind.CROWD_FLAG),
        (lambda content: annotation(content).update(iscrowd=False), Kind.CROWD_FLAG),
        (lambda content: annotation(content).pop("area"), Kind.AREA),
        (lambda content: annotation(content).update(area=None), Kind.AREA),
        (lambda content: annotation(content).update(area="unknown"), Kind.AREA),
        (lambda content: annotation(content).update(area=0), Kind.AREA),
        (lambda content: annotation(content).update(area="40"), Kind.TEXT_NUMBER),
        (lambda content: annotation(content).update(bbox=["0", "2", "10", "8"]), Kind.TEXT_NUMBER),
        (lambda content: annotation(content).update(bbox=[10, 10, -10, -8]), Kind.NEGATIVE_SIDE),
        (lambda content: annotation(content).update(segmentation=[0, 2, 10, 2, 10, 10]), Kind.FLAT_POLYGON),
        (lambda content: annotation(content)["segmentation"].append([1, 2, 3]), Kind.BAD_POLYGON),
        (lambda content: content["annotations"].append(dict(annotation(content))), Kind.EQUAL_ANNOTATION),
        (lambda content: content["images"].append(dict(content["images"][0])), Kind.EQUAL_IMAGE),
        (lambda content: content["images"].append({**content["images"][0], "id": 9}), Kind.EQUAL_IMAGE),
        (lambda content: content["categories"].append(dict(content["categories"][0])), Kind.EQUAL_CATEGORY),
        (lambda content: content["annotations"].append({**annotation(content), "id": 9, "bbox": [3, 3, 0, 4]}),
         Kind.BOX_WITHOUT_AREA),
        (lambda content: content["annotations"].append({**annotation(content), "id": 9, "bbox": [41, 3, 5, 4]}),
         Kind.BOX_OUTSIDE),
        (lambda content: content["annotations"].append({**annotation(content), "id": 9, "image_id": 99}),
         Kind.UNKNOWN_IMAGE),
        (lambda content: content["annotations"].append({**annotation(content), "id": 9, "category_id": 99}),
         Kind.UNKNOWN_CATEGORY),
        (lambda content: content["images"][0].update(width=HEIGHT, height=WIDTH), Kind.SWAPPED_SIZE),
        (lambda content: content["images"][0].pop("width"), Kind.SIZE),
        (lambda content: content["images"][0].update(height=None), Kind.SIZE),
        (lambda content: _rename(content, "train2017/1.png"), Kind.FILE_NAME),
        (lambda content: _rename(content, "train2017\\1.png"), Kind.FILE_NAME),
        (lambda content: _rename(content, "C:\\data\\1.png"), Kind.FILE_NAME),
        (lambda content: _rename(content, "/home/me/data/1.png"), Kind.FILE_NAME),
        (lambda content: _rename(content, "http://host/data/1.png?x=1"), Kind.FILE_NAME),
        (lambda content: _rename(content, "%31.png"), Kind.FILE_NAME),
        (lambda content: content["categories"].append({"id": 0, "name": "pets"}) or [
            entry.update(supercategory="pets") for entry in content["categories"][:2]], Kind.ROOT_CATEGORY),
    ],
)  # fmt: skip
def test_an_oddity_is_put_right_and_counted(folder: Path, change: Change, kind: Kind) -> None:
    normalised, copied = run(folder, change)
    if kind is Kind.AREA:
        assert copied["annotations"][0]["area"] == 40.0, "of the triangle, not of the box"
    assert copied == {"info": {}, **document()}
    assert normalised.kinds == {kind.name}
    assert f"{kind.action} 1 {kind.what}" in normalised.summary
    report = json.loads(normalised.copy.with_suffix(".report.json").read_text())
    assert [(entry["kind"], entry["count"]) for entry in report["findings"]] == [(kind.name.lower(), 1)]
    assert normalised.content() == normalised.copy


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(info={}, licenses=None, extra=[{"a": 1}], type="instances"),
        lambda content: annotation(content).update(keypoints=[1, 2, 2], num_keypoints=1, attributes={"a": 1}),
        lambda content: [entry.update(id=str(entry["id"])) for entry in content["images"]],
        lambda content: [entry.update(category_id=float(entry["category_id"])) for entry in content["annotations"]],
        lambda content: content["images"][0].update(width=f"{WIDTH}"),
    ],
)
def test_what_changes_nothing_is_not_mentioned(folder: Path, change: Change) -> None:
    normalised, copied = run(folder, change)
    assert copied == {"info": {}, **document()}
    assert normalised.summary == ""


def test_the_area_without_a_mask_is_of_the_box(folder: Path) -> None:
    def change(content: Document) -> None:
        del annotation(content)["area"], annotation(content)["segmentation"]

    _, copied = run(folder, change)
    assert copied["annotations"][0]["area"] == 80
    assert "segmentation" not in copied["annotations"][0]


@pytest.mark.parametrize("mask", [None, [], [[]], [[1, 2]], {"size": [HEIGHT, WIDTH], "counts": [1]}])
def test_objects_without_a_mask_stay_for_boxes_and_go_for_masks(folder: Path, mask: Any) -> None:
    def change(content: Document) -> None:
        annotation(content)["segmentation"] = mask

    boxes, _ = run(folder, change)
    masks, _ = run(folder, change, masks=True)
    assert (boxes.objects, boxes.maskless) == (4, 1)
    assert (masks.objects, masks.maskless) == (3, 0)
    assert "dropped 1 objects without a mask (annotation 10)" in masks.summary


def test_boxes_are_clipped_from_a_pixel_on(folder: Path) -> None:
    _, copied = run(folder, lambda content: annotation(content).update(bbox=[-5, 20, 10, 50]))
    assert copied["annotations"][0]["bbox"] == [0, 20, 5, 10]
    normalised, copied = run(folder, lambda content: annotation(content).update(bbox=[-0.5, 20, 10, 10.9]))
    assert copied["annotations"][0]["bbox"] == [-0.5, 20, 10, 10.9]
    assert normalised.summary == ""


def test_text_ids_become_numbers_everywhere_and_the_report_has_the_originals(folder: Path) -> None:
    normalised, copied = run(folder, _text_ids)
    expected = document()
    for entry in expected["annotations"]:
        entry |= {"id": entry["id"] - 9, "category_id": entry["category_id"] - 4}
    expected["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert copied == {"info": {}, **expected}
    report = json.loads(normalised.copy.with_suffix(".report.json").read_text())
    assert report["original ids by new ones"] == {
        "images": {"1": "image 1", "2": "image 2", "3": "image 3"},
        "categories": {"1": "cat", "2": "dog"},
        "annotations": {"1": "object 10", "2": "object 11", "3": "object 12", "4": "object 13"},
    }


@pytest.mark.parametrize("identifier", [0, None])
def test_annotation_ids_that_pycocotools_takes_for_none_are_renumbered(folder: Path, identifier: Any) -> None:
    _, copied = run(folder, lambda content: annotation(content, 2).update(id=identifier))
    assert [entry["id"] for entry in copied["annotations"]] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda content: annotation(content).update(id=11), "two different annotations with id 11"),
        (lambda content: content["images"][0].update(id=2), r"two images with id 2: 1\.png and 2\.png"),
        (lambda content: content["categories"][0].update(id=6), "two categories with id 6: 'cat' and 'dog'"),
        (lambda content: content["categories"][0].update(name="dog"), "two categories named 'dog', with ids 5 and 6"),
        (lambda content: content["categories"][0].pop("name"), "category 5: it has no name"),
        (lambda content: annotation(content).update(bbox={"x": 1}), "annotation 10: bbox"),
        (lambda content: annotation(content).update(area=float("inf")), "annotation 10: area: inf is not a finite"),
        (lambda content: annotation(content).update(area=[1]), "annotation 10: area"),
        (lambda content: annotation(content).pop("image_id"), "annotation 10: image_id: it is missing"),
        (lambda content: content["annotations"].append(None), "entry 4 of 'annotations': None is not an object"),
        (lambda content: _rename(content, "gone.png"), r"1 images of .* are not in .*: gone\.png;"),
        (lambda content: _rename(content, "a/" * 10_000), r"image 1: file_name: 'a/.* has 20000 characters"),
        (lambda content: content["images"][0].update(file_name="x/2.png", width=7), r"lists 2\.png twice, with dif"),
        (lambda content: content["images"][0].update(file_name="x/2.png"), r"lists x/2\.png and 2\.png, which both"),
        (lambda content: content.update(annotations=[{"image_id": 1, "caption": "A cat."}]), "contains captions"),
        (lambda content: content.update(annotations=[{"image_id": 1, "segments_info": []}]), "contains panoptic"),
        (lambda content: content["images"][0].update(width=7), r"1\.png has 40 x 30 pixels, but .* lists it with 7 x"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_one_line(folder: Path, change: Change, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        run(folder, change)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_image_is_named_before_any_training(folder: Path) -> None:
    (folder / "2.png").write_text("text")
    with pytest.raises(UserError, match=r"2\.png cannot be read: not an image, or a damaged header; replace"):
        run(folder, lambda content: None)


def test_a_name_that_is_not_utf8_is_kept(folder: Path) -> None:
    name = os.fsdecode(b"\xe9\xff.png")
    (folder / "1.png").rename(folder / name)
    _, copy = run(folder, lambda content: _rename(content, name))
    assert [image["file_name"] for image in copy["images"]] == [name, "2.png", "3.png"]


def _turn(folder: Path, orientation: int = 6) -> None:
    image = Image.new("RGB", (WIDTH, HEIGHT))
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(folder / "1.png", exif=exif)


def test_annotations_of_stored_pixels_are_turned_as_exif_turns_the_image(folder: Path) -> None:
    _turn(folder)
    normalised, copied = run(folder, lambda content: None)
    assert copied["images"][0] == {"id": 1, "file_name": "1.png", "width": HEIGHT, "height": WIDTH}
    turned = copied["annotations"][0]
    assert turned["bbox"] == [HEIGHT - 10, 0, 8, 10]
    assert turned["segmentation"] == [[HEIGHT - 2, 0, HEIGHT - 2, 10, HEIGHT - 10, 10]]
    assert copied["annotations"][1] == document()["annotations"][1], "of another image"
    assert "rotated 1 annotations of images that EXIF turns (image 1)" in normalised.summary


def test_annotations_that_fit_the_upright_image_alone_stay(folder: Path) -> None:
    _turn(folder)
    normalised, copied = run(folder, lambda content: annotation(content).update(bbox=[1, 25, 10, 14]))
    assert copied["images"][0]["height"] == WIDTH
    assert copied["annotations"][0]["bbox"] == [1, 25, 10, 14]
    assert normalised.kinds == {"SWAPPED_SIZE"}


def test_images_listed_upright_stay_as_they_are(folder: Path) -> None:
    _turn(folder)
    normalised, _ = run(folder, lambda content: content["images"][0].update(width=HEIGHT, height=WIDTH))
    assert normalised.summary == ""


def test_a_copy_is_made_once_and_again_when_file_or_images_change(folder: Path) -> None:
    normalised, _ = run(folder, lambda content: None)
    normalised.copy.write_text("kept")
    assert normalise(normalised.source, folder).copy.read_text() == "kept"
    Image.new("RGB", (WIDTH, HEIGHT), "red").save(folder / "1.png")
    assert normalise(normalised.source, folder).copy.read_text() != "kept"
    changed, _ = run(folder, lambda content: content["annotations"].pop())
    assert changed.objects == 3


def test_the_order_of_the_lists_does_not_matter(folder: Path) -> None:
    content = document()
    path = write(folder, {name: content[name] for name in ("annotations", "categories", "images")})
    assert json.loads(normalise(path, folder).copy.read_text()) == {"info": {}, **content}


def test_sizes_that_nobody_checked_do_not_clip(folder: Path) -> None:
    content = document()
    annotation(content)["bbox"] = [0, 0, 90, 90]
    normalised = normalise(write(folder, content))
    assert json.loads(normalised.copy.read_text())["annotations"][0]["bbox"] == [0, 0, 90, 90]


def test_categories_that_are_not_listed_may_be_made_known(folder: Path) -> None:
    content = document()
    content["categories"] = []
    annotation(content).pop("category_id")
    normalised = normalise(write(folder, content), classes=False)
    assert normalised.classes == {0: "0", 5: "5", 6: "6"}
    assert normalised.objects == 4


def test_files_of_countless_categories_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (listing, objects):
        monkeypatch.setattr(module, "MAX_CATEGORIES", 3)
    content = document()
    content["categories"] += [{"id": number, "name": f"n{number}"} for number in (7, 8)]
    with pytest.raises(UserError, match=r"instances\.json has more than 3 categories"):
        normalise(write(folder, content))
    content = document()
    content["annotations"] += [{**content["annotations"][0], "id": 90 + n, "category_id": 90 + n} for n in (1, 2)]
    assert len(normalise(write(folder, content)).classes) == 2  # unlisted categories are dropped
    with pytest.raises(UserError, match=r"instances\.json has more than 3 categories"):
        normalise(write(folder, content), classes=False)


def test_unlisted_categories_get_numbers_that_are_free(folder: Path) -> None:
    content = document()
    for number, key in enumerate(("a", 7, "b", 8)):
        content["annotations"][number]["category_id"] = key
    classes = normalise(write(folder, content), classes=False).classes
    assert classes == {5: "cat", 6: "dog", 7: "a", 8: "7", 9: "b", 10: "8"}


def test_long_category_names_and_the_first_missing_images_are_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = document()
    content["categories"][1]["name"] = "x" * 100_000
    with pytest.raises(UserError, match=r"category 6: its name .* more than 1000 characters") as raised:
        normalise(write(folder, content))
    assert len(str(raised.value)) < 500
    content = document()
    content["images"] += [{"id": 9 + n, "file_name": f"a/{n}" * 300} for n in range(9)]
    for most, told in ((1000, "9 images"), (4, "more than 4 images")):
        monkeypatch.setattr(listing, "_MISSING_AT_MOST", most)
        with pytest.raises(UserError, match=f"^{told} of .*a/0a/0") as raised:
            normalise(write(folder, content), folder)
        assert len(str(raised.value)) < 2000
