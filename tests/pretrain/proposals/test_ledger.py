from pathlib import Path

import numpy as np
import pytest
from ccop_pretrain.proposals.ledger import PARTS, Ledger, PartWriter, Share, remove_parts
from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.image_sources.source import open_source
from ccop_hub.proposals.shards import ImageProposals, content_digest, notes_of, shard_path, write_shard

NAMES = ["a.png", "b.png", "c.png", "d.png"]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    root.mkdir()
    for index, name in enumerate(NAMES):
        Image.new("RGB", (20, 10), (index, 0, 0)).save(root / name)
    return root


def row(path: Path, boxes: int = 1) -> ImageProposals:
    data = path.read_bytes()
    return ImageProposals(path.name, 20, 10, np.full((boxes, 4), 3, np.float32), len(data), content_digest(data))


def write(path: Path, rows: list[ImageProposals], settings: str = "ours") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shard(path, rows, notes_of(rows, {}, settings), 2**62)


def test_rows_are_found_in_shards_and_parts_and_the_rest_is_pending(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(shard_path(out, 0), [row(images / "a.png"), row(images / "c.png", 2)])
    write(out / PARTS / "one" / "0.parquet", [row(images / "b.png", 3)])
    write(out / PARTS / "two" / "0.parquet", [row(images / "d.png", 4)], settings="others")
    ledger = Ledger(open_source(images), out, "ours", 10**6)
    assert list(ledger.pending()) == [3]
    assert ledger.kept == 3
    assert [len(found.boxes) for found in ledger.rows([0, 1, 2])] == [1, 3, 2]
    assert ledger.parts() == [out / PARTS / "one" / "0.parquet"]
    assert list(Ledger(open_source(images), out, "ours", 199).pending()) == [0, 1, 2, 3]


def test_damaged_files_hold_no_rows(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out / PARTS / "one" / "0.parquet", [row(images / "a.png")])
    write(out / PARTS / "one" / "1.parquet", [row(images / "b.png")])
    (out / PARTS / "one" / "0.parquet").write_bytes(b"PAR1")
    assert list(Ledger(open_source(images), out, "ours", 10**6).pending()) == [0, 2, 3]


def test_shares_split_a_listing_by_key_alone() -> None:
    keys = [f"folder/{index}.jpg" for index in range(1000)]
    shares = [Share(number, 7) for number in range(1, 8)]
    owners = [[share.number for share in shares if key in share] for key in keys]
    assert all(len(owner) == 1 for owner in owners)
    sizes = np.bincount(np.ravel(owners), minlength=8)[1:]
    assert sizes.min() > 100
    assert all(key in Share(1, 1) for key in keys)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "1/", "/2", "a/b", "1/0", "-1/2", "1.0/2"])
def test_a_share_is_two_numbers(text: str) -> None:
    assert Share.parse("2/16") == Share(2, 16)
    with pytest.raises(UserError, match="--shard is"):
        Share.parse(text)


def test_parts_are_written_as_rows_come_each_run_in_its_own_folder(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ccop_pretrain.proposals.ledger.PART_IMAGES", 2)
    out = tmp_path / "out"
    ledger = Ledger(open_source(images), out, "ours", 10**6)
    writer, other = PartWriter(ledger), PartWriter(ledger)
    for index, name in enumerate(NAMES[:3]):
        writer.add(index, row(images / name, index))
    assert list(ledger.pending()) == [2, 3]
    writer.flush()
    other.add(3, row(images / "d.png", 9))
    other.flush()
    assert [len(found.boxes) for found in ledger.rows(range(4))] == [0, 1, 2, 9]
    assert len({path.parent for path in ledger.files}) == 2
    assert list(Ledger(open_source(images), out, "ours", 10**6).pending()) == []
    remove_parts(out, ledger.files[:2])
    assert sorted((out / PARTS).glob("*/*")) == ledger.files[2:]
    remove_parts(out, ledger.files[2:])
    assert not (out / PARTS).exists()
