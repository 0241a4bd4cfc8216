import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ccop_pretrain.cli import main
from ccop_pretrain.proposals import exchange as proposal_exchange
from ccop_pretrain.proposals.run import make_proposals
from ccop_pretrain.settings import ProposalSettings
from PIL import Image, ImageDraw

from ccop_hub.errors import UserError
from ccop_hub.proposals import shards as proposal_shards
from ccop_hub.proposals.store import ProposalStore

NAMES = [f"{index:02d}.png" for index in range(7)]
SIZES = [(120 + index, 90) for index in range(7)]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "set" / "train2017"
    root.mkdir(parents=True)
    for index, (name, size) in enumerate(zip(NAMES, SIZES, strict=True)):
        image = Image.new("RGB", size, (40, 40, 40))
        ImageDraw.Draw(image).rectangle((10 + index, 8, 60, 50 + index), fill=(200, 30 * index, 90))
        image.save(root / name)
    return root


def authors_file(path: Path, boxes: dict[int, list[list[float]]], **changed: Any) -> Path:
    """A file in the authors' format; `boxes` maps image ids (1 is the first name) to xywh boxes."""
    entries = [{"image_id": number, "bbox": box, "category_id": 1} for number, found in boxes.items() for box in found]
    sizes = zip(NAMES, SIZES, strict=True)
    content = {
        "images": [
            {"id": number, "width": width, "height": height, "file_name": name}
            for number, (name, (width, height)) in enumerate(sizes, start=1)
        ],
        "annotations": [entry | {"id": number} for number, entry in enumerate(entries)],
        "categories": [{"supercategory": "RoI", "id": 1, "name": "RoI"}],
    }
    path.write_text(json.dumps(content | changed))
    return path


BOXES: dict[int, list[list[float]]] = {
    2: [[1, 2, 30, 40], [0, 0, 121, 90]],
    7: [[5, 5, 25, 25], [0.1, 0.2, 0.3, 0.4]],
    1: [[3, 3, 40, 30]],
}


def corners(boxes: list[list[float]]) -> np.ndarray:
    table = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return np.hstack((table[:, :2], table[:, :2] + table[:, 2:])).astype(np.float32)


def settings(images: Path, out: Path, **changed: Any) -> ProposalSettings:
    return ProposalSettings(images, out, workers=1, **changed)


def test_the_authors_file_is_taken_over_by_file_name(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Boxes in arbitrary order, with several shards, buckets and reading rounds.
    monkeypatch.setattr(proposal_shards, "IMAGES_PER_SHARD", 2)
    monkeypatch.setattr(proposal_exchange, "_SHARDS_A_BUCKET", 2)
    monkeypatch.setattr(proposal_exchange, "_BOXES_AT_ONCE", 2)
    path = authors_file(tmp_path / "ss.json", BOXES)
    content = json.loads(path.read_text())
    content["annotations"] = content["annotations"][::2] + content["annotations"][1::2]
    content["images"].append({"id": 99, "width": 9, "height": 9, "file_name": "of another set.png"})
    content["annotations"].append({"image_id": 99, "bbox": [0, 0, 500, 500], "category_id": 1, "id": 99})
    content["annotations"].append({"image_id": 1, "bbox": [0, 0, 5, 5], "category_id": 1, "id": 100, "iscrowd": 1})
    path.write_text(json.dumps(content))
    manifest, skipped = make_proposals(settings(images, tmp_path / "out", from_coco=path))
    store = ProposalStore.open(tmp_path / "out")
    assert store.images == NAMES
    assert not skipped
    for number, (name, size) in enumerate(zip(NAMES, SIZES, strict=True), start=1):
        np.testing.assert_array_equal(store.boxes(name), corners(BOXES.get(number, [])))
        assert store.size(name) == size
    assert (manifest.boxes, manifest.empty) == (5, 4)
    assert not [path for path in (tmp_path / "out").iterdir() if path.is_dir()]


def test_only_the_first_boxes_are_kept(images: Path, tmp_path: Path) -> None:
    path = authors_file(tmp_path / "ss.json", BOXES)
    make_proposals(settings(images, tmp_path / "out", from_coco=path, keep=1))
    np.testing.assert_array_equal(ProposalStore.open(tmp_path / "out").boxes("01.png"), corners(BOXES[2][:1]))


def test_what_goes_out_is_the_authors_format_and_comes_back_the_same(images: Path, tmp_path: Path) -> None:
    out, path = tmp_path / "out", tmp_path / "coco" / "ss.json"
    # Boxes from a downscaled copy have fractional corners.
    assert main(["proposals", str(images), f"--out={out}", "--workers=1", "--max-side=77", f"--to-coco={path}"]) == 0
    content = json.loads(path.read_text())
    assert list(content) == ["images", "annotations", "categories"]
    assert content["categories"] == [{"supercategory": "RoI", "id": 1, "name": "RoI"}]
    assert content["images"][1] == {"id": 2, "width": 121, "height": 90, "file_name": "01.png"}
    assert [entry["id"] for entry in content["annotations"]] == list(range(len(content["annotations"])))
    assert {frozenset(entry) for entry in content["annotations"]} == {
        frozenset({"image_id", "bbox", "category_id", "id"})
    }
    store = ProposalStore.open(out)
    assert len(content["annotations"]) == store.manifest.boxes > 7
    make_proposals(settings(images, tmp_path / "back", from_coco=path))
    back = ProposalStore.open(tmp_path / "back")
    assert any((store.boxes(name) % 1).any() for name in NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(back.boxes(name), store.boxes(name))
        assert back.size(name) == store.size(name)


def test_whole_pixels_are_written_as_whole_numbers_and_ids_are_the_jsons(images: Path, tmp_path: Path) -> None:
    instances = tmp_path / "set" / "annotations" / "instances_train2017.json"
    instances.parent.mkdir()
    content = json.loads(authors_file(tmp_path / "x.json", {}).read_text())
    for entry in content["images"]:
        entry["id"] = 1000 - entry["id"]
    instances.write_text(json.dumps(content))
    path = tmp_path / "ss.json"
    assert main(["proposals", str(instances), f"--out={tmp_path / 'out'}", "--workers=1", f"--to-coco={path}"]) == 0
    written = json.loads(path.read_text())
    assert [entry["id"] for entry in written["images"]] == list(range(999, 992, -1))
    assert {entry["image_id"] for entry in written["annotations"]} <= set(range(993, 1000))
    assert all(type(value) is int for entry in written["annotations"] for value in entry["bbox"])


def test_images_that_the_json_does_not_list_are_left_out(images: Path, tmp_path: Path) -> None:
    listed = json.loads(authors_file(tmp_path / "x.json", {}).read_text())["images"][:5]
    del listed[0]["width"]
    listed[2]["height"] += 1
    path = authors_file(tmp_path / "ss.json", {2: BOXES[2]}, images=listed)
    with pytest.raises(UserError, match=r"images cannot be used, more than the .* of 0\.01"):
        make_proposals(settings(images, tmp_path / "out", from_coco=path))
    _, skipped = make_proposals(settings(images, tmp_path / "out", from_coco=path, max_unreadable=0.5))
    assert ProposalStore.open(tmp_path / "out").size("00.png") == SIZES[0], "from its file"
    assert skipped.reasons() == {
        "02.png": "ss.json lists it with 122 x 91 pixels, but it has 122 x 90",
        "05.png": "ss.json does not list it",
        "06.png": "ss.json does not list it",
    }


def test_odd_boxes_and_entries_are_put_right_and_counted(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = authors_file(tmp_path / "ss.json", {})
    content = json.loads(path.read_text())
    for entry in content["images"]:
        entry |= {"id": f"id {entry['id']}", "width": entry["height"], "height": entry["width"]}
        entry["file_name"] = "train2017\\" + entry["file_name"]
    boxes = [[100, 0, 60, 20], [0, 0, 0, 20], ["5", "6", "-3", "4"], [200, 0, 9, 9], [1, 2, 3, 4]]
    content["annotations"] = [{"id": number, "image_id": "id 3", "bbox": box} for number, box in enumerate(boxes)]
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(content).encode())
    make_proposals(settings(images, tmp_path / "out", from_coco=path))
    store = ProposalStore.open(tmp_path / "out")
    assert store.boxes("02.png").tolist() == [[100, 0, 122, 20], [2, 6, 5, 10], [1, 2, 4, 6]]
    assert store.size("02.png") == SIZES[2]
    told = capsys.readouterr().out
    assert "dropped 1 objects whose box has no width or height (annotation 1)" in told
    assert "dropped 1 objects outside their image" in told
    assert "clipped 1 boxes" in told
    assert "fixed 7 images whose width and height were swapped" in told


def test_boxes_of_other_images_are_refused(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposal_exchange, "_ENOUGH_IMAGES", 5)
    inside = [[1, 2, 30, 40]]
    path = authors_file(tmp_path / "ss.json", dict.fromkeys(range(1, 6), inside) | {6: [[100, 0, 60, 20]]})
    with pytest.raises(UserError, match="1 of 6 images have boxes that extend beyond the image"):
        make_proposals(settings(images, tmp_path / "out", from_coco=path))


def test_boxes_of_stored_pixels_are_turned_as_exif_turns_the_image(images: Path, tmp_path: Path) -> None:
    with Image.open(images / "00.png") as image:
        exif = image.getexif()
        exif[0x0112] = 6  # rotate 90 degrees clockwise to display
        image.save(images / "00.png", exif=exif)
    path = authors_file(tmp_path / "ss.json", {1: [[10, 20, 30, 5]]})
    make_proposals(settings(images, tmp_path / "out", from_coco=path))
    store = ProposalStore.open(tmp_path / "out")
    assert store.size("00.png") == (90, 120)
    assert store.boxes("00.png").tolist() == [[90 - 25, 10, 90 - 20, 40]]


def test_wrong_files_are_named(images: Path, tmp_path: Path) -> None:
    def made(name: str, boxes: dict[int, list[Any]], **changed: Any) -> Path:
        return authors_file(tmp_path / name, boxes, **changed)

    others = [{"id": 1, "width": 9, "height": 9, "file_name": "other.png"}]
    cases = {
        tmp_path / "absent.json": "cannot read",
        made("others.json", {}, images=others): "none of the images of .*others.json is among the 7",
        made("short.json", {3: [[0, 0, 5]]}): "not a COCO JSON: annotation 0: bbox",
        made("none.json", {3: [[0, 0, 5, float("nan")]]}): "not a COCO JSON: annotation 0: bbox",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message):
            make_proposals(settings(images, tmp_path / "out", from_coco=path, overwrite=True))
    make_proposals(settings(images, tmp_path / "out", overwrite=True))
    with pytest.raises(UserError, match=r"proposals with other settings \(from_coco None not sha256:"):
        make_proposals(settings(images, tmp_path / "out", from_coco=made("ss.json", BOXES)))
