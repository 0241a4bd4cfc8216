import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ccop_hub.errors import UserError
from ccop_hub.proposals import shards as proposal_shards
from ccop_hub.proposals.shards import ImageProposals, Manifest, notes_of, shard_path, write_shard
from ccop_hub.proposals.store import ProposalStore

BOXES = {
    "a.jpg": np.array([[0, 0, 30, 40], [1.5, 2.25, 30, 40]], np.float32),
    "b/c.jpg": np.zeros((0, 4), np.float32),
    "d é.jpg": np.array([[5, 6, 70, 80]], np.float32),
}
MANIFEST = Manifest("photos", 4, "", {}, "digest", {}, skipped=1, boxes=3, empty=1, complete=True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shards of two images; the first also skipped one."""
    monkeypatch.setattr(proposal_shards, "IMAGES_PER_SHARD", 2)
    rows = [ImageProposals(image, 100 + index, 90, boxes, 1, 1) for index, (image, boxes) in enumerate(BOXES.items())]
    for number, (part, skipped) in enumerate(((rows[:1], {"bad.jpg": "truncated"}), (rows[1:], {}))):
        write_shard(shard_path(tmp_path, number), part, notes_of(part, skipped, "digest"), 0)
    MANIFEST.write(tmp_path)
    return tmp_path


def test_boxes_come_back_by_image(folder: Path) -> None:
    store = ProposalStore.open(folder)
    assert list(store.images) == list(BOXES)
    assert len(store) == 3
    for index, (image, boxes) in enumerate(BOXES.items()):
        assert image in store
        assert store.boxes(image).dtype == np.float32
        np.testing.assert_array_equal(store.boxes(image), boxes)
        assert store.size(image) == (100 + index, 90)
    assert "bad.jpg" not in store
    assert store.skipped == {"bad.jpg": "truncated"}
    with pytest.raises(KeyError):
        store.boxes("absent.jpg")


def test_changing_what_was_read_changes_nothing(folder: Path) -> None:
    store = ProposalStore.open(folder)
    store.boxes("a.jpg")[:] = -1
    np.testing.assert_array_equal(store.boxes("a.jpg"), BOXES["a.jpg"])


def test_require_accepts_skipped_images_and_subsets(folder: Path) -> None:
    ProposalStore.open(folder).require(["a.jpg", "bad.jpg"])
    with pytest.raises(UserError, match=r"1 of 2 images \(first: other\.jpg\).*made from 'photos'"):
        ProposalStore.open(folder).require(["a.jpg", "other.jpg"])


@pytest.mark.parametrize("images", [["d é.jpg", "b/c.jpg"], ["b/c.jpg", "b/c.jpg"], ["a.jpg", "d é.jpg"]])
def test_shards_whose_images_are_not_in_order_are_refused(folder: Path, images: list[str]) -> None:
    rows = [ImageProposals(image, 100, 90, BOXES["d é.jpg"][: number % 2], 1, 1) for number, image in enumerate(images)]
    write_shard(shard_path(folder, 1), rows, notes_of(rows, {}, "digest"), 0)
    with pytest.raises(UserError, match="not sorted by image, or contain an image twice"):
        ProposalStore.open(folder)


def test_what_is_no_whole_store_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no proposals"):
        ProposalStore.open(tmp_path / "absent")
    for change, message in (
        ({"complete": False}, "unfinished"),
        ({"boxes": 2}, "do not match"),
        ({"boxes": 6 * 10**15}, "do not match"),  # 87 PiB: refused before they are allocated
        ({"boxes": 10**30}, r"manifest\.json .*boxes is 10+, not a whole number"),
        ({"boxes": 3.0}, r"manifest\.json .*boxes is 3\.0, not a whole number"),
        ({"images": "4"}, r"manifest\.json .*images is '4', not a whole number"),
        ({"images": 10**12}, r"proposals-00002\.parquet is missing"),
        ({"versions": {"pillow": 1}}, r"manifest\.json .*versions contains something other than text"),
        ({"boxes": 4}, "do not match"),
        ({"skipped": 0}, "do not match"),
    ):
        dataclasses.replace(MANIFEST, **change).write(folder)
        with pytest.raises(UserError, match=message):
            ProposalStore.open(folder)
    MANIFEST.write(folder)
    shard_path(folder, 1).unlink()
    with pytest.raises(UserError, match=r"proposals-00001\.parquet is missing or damaged"):
        ProposalStore.open(folder)
