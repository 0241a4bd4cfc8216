import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ccop_hub.errors import UserError
from ccop_hub.proposals import shards as proposal_shards
from ccop_hub.proposals.shards import (
    ImageProposals,
    Manifest,
    ShardRows,
    content_digest,
    notes_of,
    read_columns,
    read_notes,
    settings_digest,
    shard_bounds,
    shard_path,
    shard_paths,
    write_shard,
)

BOXES = {
    "a.jpg": np.array([[0, 0, 30, 40], [1.5, 2.25, 30, 40]], np.float32),
    "b/c.jpg": np.zeros((0, 4), np.float32),
    "d é.jpg": np.array([[5, 6, 70, 80]], np.float32),
}
ROWS = [ImageProposals(image, 100 + index, 90, boxes, 7, 2**63) for index, (image, boxes) in enumerate(BOXES.items())]


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    path = shard_path(tmp_path, 0)
    write_shard(path, ROWS, notes_of(ROWS, {"bad.jpg": "truncated"}, "digest"), 10**18)
    return path


def test_rows_come_back(shard: Path) -> None:
    rows = ShardRows(shard)
    assert len(rows) == 3
    for row, expected in zip(rows, ROWS, strict=True):
        np.testing.assert_array_equal(row.boxes, expected.boxes)
        assert row.boxes.dtype == np.float32
        names = ("image", "width", "height", "bytes", "content")
        assert [getattr(row, name) for name in names] == [getattr(expected, name) for name in names]
    assert shard.stat().st_mtime_ns == 10**18


def test_columns_are_plain_parquet(shard: Path) -> None:
    table = pq.read_table(shard)
    types = {field.name: str(field.type) for field in table.schema}
    assert types.pop("boxes").startswith("list<element: fixed_size_list<element: float")
    assert types == {"image": "string", "width": "int32", "height": "int32", "bytes": "int64", "content": "uint64"}
    assert table["boxes"].to_pylist()[0][1] == [1.5, 2.25, 30, 40]
    assert table["boxes"].to_pylist()[1] == []


def test_notes_of_a_shard(shard: Path) -> None:
    notes = read_notes(shard)
    assert notes is not None
    assert (notes.settings, notes.rows, notes.boxes, notes.empty) == ("digest", 3, 3, 1)
    assert notes.skipped == {"bad.jpg": "truncated"}


def rewritten(shard: Path, **columns: pa.Array) -> Path:
    """Replace columns of the shard but keep its metadata."""
    table = pq.read_table(shard)
    notes = table.schema.metadata
    for name, column in columns.items():
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table.replace_schema_metadata(notes), shard)
    return shard


def test_columns_are_checked(shard: Path) -> None:
    sizes = pa.array([100, 0, 102], pa.int32())
    with pytest.raises(UserError, match=r"proposals-00000\.parquet is damaged: width, height has a side below 1"):
        ShardRows(rewritten(shard, width=sizes))
    with pytest.raises(UserError, match="damaged: width is double, not int32"):
        ShardRows(rewritten(shard, width=pa.array([100.0, 1.0, 102.0])))
    with pytest.raises(UserError, match="damaged: image contains nulls"):
        ShardRows(rewritten(shard, width=pa.array([1, 1, 1], pa.int32()), image=pa.array(["a", None, "b"])))


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e6])
def test_boxes_are_checked(shard: Path, value: float) -> None:
    boxes = BOXES["a.jpg"].copy()
    boxes[1, 2] = value
    rows = [dataclasses.replace(ROWS[0], boxes=boxes)]
    write_shard(shard, rows, notes_of(rows, {}, "digest"), 0)
    with pytest.raises(UserError, match="damaged: boxes has corners"):
        ShardRows(shard)


@pytest.mark.parametrize("change", [{"rows": 2}, {"boxes": 10**9}, {"empty": 0}, {"boxes": "3"}, {"skipped": {"a": 1}}])
def test_notes_that_do_not_fit_their_shard_are_no_notes(shard: Path, change: dict[str, Any]) -> None:
    notes = notes_of(ROWS, {}, "digest")
    write_shard(shard, ROWS, dataclasses.replace(notes, **change), 0)
    assert read_notes(shard) is None


def test_a_missing_or_damaged_shard_is_no_shard(shard: Path) -> None:
    for path in (shard_path(shard.parent, 1), shard):
        shard.write_bytes(shard.read_bytes()[:-20])
        assert read_notes(path) is None
        assert read_columns(path, ["image"]) is None
        with pytest.raises(UserError, match="missing or damaged"):
            ShardRows(path)


def test_a_failed_write_leaves_the_old_shard(shard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = shard.read_bytes()

    def full_disk(table: object, file: BinaryIO, **options: object) -> None:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(proposal_shards.pq, "write_table", full_disk)
    with pytest.raises(UserError, match=r"parquet \(No space"):
        write_shard(shard, [], notes_of([], {}, "other"), 0)
    assert shard.read_bytes() == before
    assert [path.name for path in shard.parent.iterdir()] == [shard.name]


def test_shards_are_cut_and_named_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proposal_shards, "IMAGES_PER_SHARD", 4)
    assert [(number, list(indices)) for number, indices in shard_bounds(6)] == [(0, [0, 1, 2, 3]), (1, [4, 5])]
    for number in (100_000, 2, 10):
        shard_path(tmp_path, number).touch()
    (tmp_path / "proposals-other.parquet").touch()
    assert shard_paths(tmp_path) == [shard_path(tmp_path, number) for number in (2, 10, 100_000)]


def test_digests_tell_what_differs() -> None:
    assert settings_digest({"a": 1, "b": None}) == settings_digest({"b": None, "a": 1}) != settings_digest({"a": 2})
    assert content_digest(b"one") != content_digest(b"two")
    assert 0 <= content_digest(os.urandom(100)) < 2**64


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="contains no proposals"):
        Manifest.read(tmp_path)
    Manifest("photos", 4, "", {}, "", {}).write(tmp_path)
    assert Manifest.read(tmp_path) == Manifest("photos", 4, "", {}, "", {})
    facts = json.loads((tmp_path / "manifest.json").read_text())
    for text, message in (
        (json.dumps(facts | {"format_version": 1}), "format 1, this version reads 2"),
        (json.dumps(facts | {"unknown": 1}), "not a manifest"),
        ("{", "not a manifest"),
        ("[]", "not a manifest"),
    ):
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(UserError, match=message):
            Manifest.read(tmp_path)
