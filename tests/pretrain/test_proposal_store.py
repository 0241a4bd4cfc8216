import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from ccop_pretrain import proposal_store
from ccop_pretrain.proposal_store import (
    ImageProposals,
    Manifest,
    ProposalStore,
    listing_digest,
    read_shard_notes,
    shard_path,
    write_shard,
)

from ccop_hub.errors import UserError

BOXES = {
    "a.jpg": np.array([[0, 0, 30, 40], [1.5, 2.25, 30, 40]], np.float32),
    "b/c.jpg": np.zeros((0, 4), np.float32),
    "d é.jpg": np.array([[5, 6, 70, 80]], np.float32),
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [ImageProposals(image, 100 + index, 90, boxes) for index, (image, boxes) in enumerate(BOXES.items())]
    write_shard(shard_path(tmp_path, 0), rows, {"bad.jpg": "truncated"}, "digest")
    Manifest("photos", 4, listing_digest([]), {"seed": 0}, {}, complete=True).write(tmp_path)
    return tmp_path


def test_boxes_come_back_by_image(folder: Path) -> None:
    store = ProposalStore.open(folder)
    assert store.images == list(BOXES)
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


def test_columns_are_plain_parquet(folder: Path) -> None:
    table = pq.read_table(shard_path(folder, 0))
    types = {field.name: str(field.type) for field in table.schema}
    assert {name: types[name] for name in ("image", "width", "height")} == {
        "image": "string",
        "width": "int32",
        "height": "int32",
    }
    assert "fixed_size_list" in types["boxes"]
    assert "float" in types["boxes"]
    assert table["boxes"].to_pylist()[0][1] == [1.5, 2.25, 30, 40]
    assert table["boxes"].to_pylist()[1] == []


def test_notes_of_a_shard(folder: Path) -> None:
    notes = read_shard_notes(shard_path(folder, 0))
    assert notes is not None
    assert (notes.digest, notes.boxes, notes.empty, notes.skipped) == ("digest", 3, 1, {"bad.jpg": "truncated"})
    assert read_shard_notes(shard_path(folder, 1)) is None
    shard_path(folder, 1).write_bytes(shard_path(folder, 0).read_bytes()[:-20])
    assert read_shard_notes(shard_path(folder, 1)) is None


def test_a_failed_write_leaves_the_old_shard(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shard_path(folder, 0).read_bytes()

    def full_disk(table: object, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(proposal_store.pq, "write_table", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_shard(shard_path(folder, 0), [], {}, "other")
    assert shard_path(folder, 0).read_bytes() == before


def test_several_shards_are_one_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposal_store, "IMAGES_PER_SHARD", 1)
    for number, (image, boxes) in enumerate(BOXES.items()):
        write_shard(shard_path(tmp_path, number), [ImageProposals(image, 9, 8, boxes)], {}, "digest")
    Manifest("photos", 3, "", {}, {}, complete=True).write(tmp_path)
    store = ProposalStore.open(tmp_path)
    for image, boxes in BOXES.items():
        np.testing.assert_array_equal(store.boxes(image), boxes)
    shard_path(tmp_path, 1).unlink()
    with pytest.raises(UserError, match=r"proposals-00001\.parquet is missing or damaged"):
        ProposalStore.open(tmp_path)


def test_require_accepts_skipped_images_and_subsets(folder: Path) -> None:
    ProposalStore.open(folder).require(["a.jpg", "bad.jpg"])
    with pytest.raises(UserError, match=r"1 of 2 images \(first: other\.jpg\).*made of the folder 'photos'"):
        ProposalStore.open(folder).require(["a.jpg", "other.jpg"])


def test_what_is_no_store_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no proposals"):
        ProposalStore.open(tmp_path / "absent")
    facts = json.loads((folder / "manifest.json").read_text())
    for change, message in (({"complete": False}, "unfinished"), ({"format_version": 99}, "format 99")):
        (folder / "manifest.json").write_text(json.dumps(facts | change))
        with pytest.raises(UserError, match=message):
            ProposalStore.open(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="not a manifest"):
        ProposalStore.open(folder)


def test_listing_digest_knows_order_and_borders() -> None:
    digests = {listing_digest(listing) for listing in (["a", "b"], ["b", "a"], ["ab"], ["a"], [])}
    assert len(digests) == 5
