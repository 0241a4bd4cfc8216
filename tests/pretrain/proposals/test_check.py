import json
from pathlib import Path

import numpy as np
import pytest
from ccop_pretrain.cli import main
from ccop_pretrain.proposals.check import iou
from PIL import Image

from ccop_hub.proposals import shards as proposal_shards

NAMES = [f"{index}.png" for index in range(5)]
# Image id -> xywh boxes: proposals of images 1 to 4, and objects of some images.
PROPOSALS = {1: [[0, 0, 10, 10], [20, 20, 40, 40]], 2: [[0, 0, 30, 30]], 3: [[5, 5, 20, 20]] * 7}
OBJECTS = {
    1: [([0, 0, 10, 10], 1), ([20, 20, 40, 80], 1), ([90, 90, 5, 5], 2)],  # best overlaps 1, 0.5, 0
    2: [([0, 0, 30, 10], 2)],  # 1/3
    4: [([0, 0, 10, 10], 2)],  # no proposals: 0
    5: [([0, 0, 10, 10], 2)],  # not in the proposals
}


def coco(path: Path, boxes: dict[int, list[tuple[list[float], int]]], images: int = 5) -> Path:
    entries = [(number, *pair) for number, pairs in boxes.items() for pair in pairs]
    content = {
        "images": [
            {"id": number, "file_name": name, "width": 100, "height": 100}
            for number, name in enumerate(NAMES[:images], start=1)
        ],
        "annotations": [
            {"id": place, "image_id": number, "bbox": box, "category_id": category}
            for place, (number, box, category) in enumerate(entries)
        ],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command for five images, the last of which has no entry in the proposals."""
    monkeypatch.setattr(proposal_shards, "IMAGES_PER_SHARD", 2)
    (tmp_path / "images").mkdir()
    for name in NAMES:
        Image.new("RGB", (100, 100)).save(tmp_path / "images" / name)
    boxes = {number: [(box, 1) for box in found] for number, found in PROPOSALS.items()}
    path = coco(tmp_path / "ss.json", boxes, images=4)
    base = ["proposals", str(tmp_path / "images"), f"--out={tmp_path / 'out'}"]
    assert main([*base, f"--from-coco={path}", "--max-unreadable=0.5"]) == 0
    return [*base, "--check"]


def report(tmp_path: Path) -> dict[str, float]:
    read: dict[str, float] = json.loads((tmp_path / "out" / "check.json").read_text())
    return read


def test_coverage_and_boxes(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    found = report(tmp_path)
    counts = {name: found[name] for name in ("images", "with proposals", "left out", "missing", "coverage")}
    assert counts == {"images": 5, "with proposals": 4, "left out": 1, "missing": 0, "coverage": 0.8}
    assert (found["boxes"], found["images without a box"], found["boxes an image, mean"]) == (10, 1, 2.5)
    for name, share in (
        ("smallest", 0),
        ("25% quantile", 0.25),
        ("median", 0.5),
        ("95% quantile", 0.95),
        ("largest", 1),
    ):
        assert found[f"boxes an image, {name}"] == pytest.approx(np.quantile([2, 1, 7, 0], share))
    # Seven boxes of 20 px, and 10, 30 and 40 px.
    assert [found[f"box size in pixels, {name}"] for name in ("5% quantile", "median", "95% quantile")] == [10, 20, 40]
    assert "recall@0.5" not in found
    assert "coverage" in capsys.readouterr().out


def test_recall_and_average_best_overlap(arguments: list[str], tmp_path: Path) -> None:
    assert main([*arguments, f"--ground-truth={coco(tmp_path / 'gt.json', OBJECTS)}"]) == 0
    found = report(tmp_path)
    assert (found["ground truth, images"], found["ground truth, objects"]) == (4, 5)
    assert found["ground truth, objects in images without proposals (not counted)"] == 1
    assert found["recall@0.5"] == pytest.approx(2 / 5)
    assert found["ABO (mean over objects)"] == pytest.approx((1 + 0.5 + 0 + 1 / 3 + 0) / 5)
    assert found["MABO (mean over classes)"] == pytest.approx((0.75 + 1 / 9) / 2)


def test_images_that_came_or_changed_since_are_missing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    Image.new("RGB", (50, 50)).save(tmp_path / "images" / "0.png")
    Image.new("RGB", (50, 50)).save(tmp_path / "images" / "new.png")
    assert main(arguments) == 1
    assert (report(tmp_path)["missing"], report(tmp_path)["with proposals"]) == (2, 3)
    assert "next: ccop-pretrain proposals" in capsys.readouterr().out
    (tmp_path / "out" / "check.json").unlink()
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_ground_truth_of_other_images_is_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "gt.json"
    path.write_text(json.dumps({"images": [{"id": 1, "file_name": "other.png"}], "annotations": []}))
    assert main([*arguments, f"--ground-truth={path}"]) == 2
    assert "none of the images of" in capsys.readouterr().err
    assert main([*arguments, f"--ground-truth={coco(path, {})}"]) == 2
    assert "has no object in the images" in capsys.readouterr().err


def test_iou_in_closed_form() -> None:
    first = np.array([[0, 0, 2, 2], [0, 0, 1, 1]])
    second = np.array([[1, 1, 3, 3], [0, 0, 2, 2], [5, 5, 6, 6]], dtype=np.float32)
    np.testing.assert_allclose(iou(first, second), [[1 / 7, 1, 0], [0, 1 / 4, 0]])
