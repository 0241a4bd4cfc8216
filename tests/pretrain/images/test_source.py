import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from ccop_pretrain.images.source import ImageSource, open_source
from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.images import UnreadableImageError

NAMES = ["a/0.png", "a/1.jpg", "b.webp", "é.tiff"]


def picture(name: str) -> Image.Image:
    """A picture of one colour, another one for each name."""
    return Image.new("RGB", (9 + len(name), 6), (40 * NAMES.index(name) + 20, 90, 200))


def encoded(name: str) -> bytes:
    file = io.BytesIO()
    picture(name).save(file, {"png": "PNG", "jpg": "JPEG", "webp": "WEBP", "tiff": "TIFF"}[name.rpartition(".")[2]])
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for name in NAMES:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(name))
    return root


def write_tar(path: Path, members: dict[str, bytes], **options: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as archive:  # type: ignore[call-overload]
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    root = tmp_path / "shards"
    write_tar(root / "train-000.tar", {"a/1.jpg": encoded("a/1.jpg"), "a/1.cls": b"7", "a/0.png": encoded("a/0.png")})
    long_name = "x" * 120 + ".jpg"  # longer than the header's own field
    write_tar(root / "train-001.tar", {"./b.webp": encoded("b.webp"), "._b.webp": b"", long_name: encoded("a/1.jpg")})
    return root


def colours(source: ImageSource) -> dict[str, int]:
    return {stored.key: int(np.asarray(stored.read())[3, 3, 0]) for stored in source}


def close(found: dict[str, int], expected: dict[str, int]) -> bool:
    return found.keys() == expected.keys() and all(abs(found[key] - expected[key]) <= 3 for key in expected)


def test_a_folder_is_its_images_by_relative_path(folder: Path) -> None:
    source = open_source(folder)
    assert source.keys == NAMES
    assert source.name == "photos"
    assert source.ids is None
    assert close(colours(source), {name: 40 * place + 20 for place, name in enumerate(NAMES)})
    assert source[1].state() == ((folder / NAMES[1]).stat().st_size, (folder / NAMES[1]).stat().st_mtime_ns)
    assert source[1].read_bytes() == encoded(NAMES[1])


def test_a_list_names_images_by_its_lines(folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "alone.png"
    picture("a/0.png").save(elsewhere)
    (folder / "some.txt").write_text(f"é.tiff\r\n\n./a//0.png\n{elsewhere}\nabsent.jpg\n", encoding="utf-8")
    source = open_source(folder / "some.txt")
    assert source.keys == [str(elsewhere), "a/0.png", "absent.jpg", "é.tiff"]
    assert source.name == "some"
    assert source[0].read().size == source[1].read().size == (16, 6)
    assert source[2].state() == (-1, 0)
    with pytest.raises(UnreadableImageError, match="No such file"):
        source[2].read()
    with pytest.raises(UnreadableImageError, match="No such file"):
        source[2].read_bytes()


def test_tar_shards_are_read_at_any_place(shards: Path) -> None:
    source = open_source(shards)
    expected = {
        "train-000.tar/a/0.png": 20,
        "train-000.tar/a/1.jpg": 60,
        "train-001.tar/b.webp": 100,
        f"train-001.tar/{'x' * 120}.jpg": 60,
    }
    assert source.keys == list(expected)
    assert close(colours(source), expected)
    for place in (3, 0, 2, 1):
        assert abs(int(np.asarray(source[place].read())[2, 2, 0]) - list(expected.values())[place]) <= 3
    assert source[0].read_bytes() == encoded("a/0.png")
    assert source[0].state() == (len(encoded("a/0.png")), (shards / "train-000.tar").stat().st_mtime_ns)


def test_shards_are_named_by_pattern_or_one_by_one(shards: Path) -> None:
    whole = open_source(shards)
    for pattern in ("train-{000..001}.tar", "train-{000,001}.tar", "train-*.tar"):
        assert open_source(shards / pattern).keys == whole.keys
    assert open_source(shards / "train-000.tar").keys == whole.keys[:2]
    assert open_source(shards / "train-000.tar").name == "train-000"


def test_shards_in_several_folders_keep_their_path(shards: Path) -> None:
    (shards / "more").mkdir()
    (shards / "train-001.tar").rename(shards / "more" / "train-000.tar")
    source = open_source(shards.parent / "shards" / "{more/,}train-000.tar")
    assert source.keys[0].startswith("more/train-000.tar/")
    assert source.keys[-1] == "train-000.tar/a/1.jpg"


def test_of_members_with_one_name_the_last_counts(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", {"0.png": encoded("a/0.png")})
    with tarfile.open(tmp_path / "s.tar", "a") as archive:
        entry = tarfile.TarInfo("0.png")
        entry.size = len(encoded("b.webp"))
        archive.addfile(entry, io.BytesIO(encoded("b.webp")))
    source = open_source(tmp_path / "s.tar")
    assert len(source) == 1
    assert source[0].read().size == (15, 6)


def test_webdataset_reads_the_same_images_from_such_shards(shards: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    urls = [str(path) for path in sorted(shards.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    streamed = {data for sample in samples for name, data in sample.items() if name in ("png", "jpg", "webp")}
    assert streamed == {stored.read_bytes() for stored in open_source(shards)}


def coco(path: Path, names: list[str]) -> Path:
    entries = [{"id": 100 - place, "file_name": name, "width": 1, "height": 1} for place, name in enumerate(names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"info": {"images": 3}, "annotations": [], "images": entries}), encoding="utf-8")
    return path


@pytest.mark.parametrize("place", ["train2017", "images/train2017", "images", ".", "annotations"])
def test_a_coco_json_finds_its_images(folder: Path, tmp_path: Path, place: str) -> None:
    path = coco(tmp_path / "set" / "annotations" / "instances_train2017.json", list(reversed(NAMES)))
    (tmp_path / "set" / place).mkdir(parents=True, exist_ok=True)
    for item in folder.iterdir():
        item.rename(tmp_path / "set" / place / item.name)
    source = open_source(path)
    assert source.keys == NAMES
    assert source.ids is not None
    assert source.ids.tolist() == [97, 98, 99, 100]
    assert source.root == tmp_path / "set" / place
    assert source.name == (tmp_path / "set" / place).resolve().name  # as for the folder itself
    assert source[3].read().size == picture("é.tiff").size


def test_a_coco_folder_gives_its_training_images_alone(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    folder.rename(root / "train2017")
    (root / "val2017").mkdir()
    picture("b.webp").save(root / "val2017" / "val.png")
    coco(root / "annotations" / "instances_val2017.json", ["val.png"])
    with pytest.raises(UserError, match=r"instances_val2017\.json in annotations: name the JSON or the folder"):
        open_source(root)
    coco(root / "annotations" / "instances_train2017.json", NAMES)
    assert open_source(root).keys == open_source(root / "train2017").keys == NAMES
    coco(root / "annotations" / "instances_train2014.json", NAMES)
    with pytest.raises(UserError, match="name the JSON"):
        open_source(root)


def test_wrong_input_is_named(folder: Path, shards: Path, tmp_path: Path) -> None:
    def written(name: str, text: str) -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    write_tar(tmp_path / "labels.tar", {"a.cls": b"1"})
    with tarfile.open(tmp_path / "packed.tar", "w:gz") as archive:
        archive.add(folder / "b.webp", "b.webp")
    (tmp_path / "cut.tar").write_bytes((shards / "train-000.tar").read_bytes()[:700])
    (tmp_path / "cut-late.tar").write_bytes((shards / "train-000.tar").read_bytes()[:-9000])
    (tmp_path / "mixed").mkdir()
    picture("a/0.png").save(tmp_path / "mixed" / "0.png")
    (shards / "train-000.tar").rename(tmp_path / "mixed" / "t.tar")
    twice = [{"id": number, "file_name": "a.jpg"} for number in (1, 2)]
    same_id = [{"id": 1, "file_name": name} for name in NAMES]
    cases = {
        tmp_path / "absent": "does not exist; give a folder of images, a list",
        tmp_path / "none-{0..3}.tar": r"none-0\.tar does not exist",
        tmp_path / "none-*.tar": "does not exist",
        tmp_path / "photos" / "*.webp": "is no .tar file",
        tmp_path / "labels.tar": "no image in the 1 tar files",
        tmp_path / "packed.tar": "not a whole, uncompressed tar",
        tmp_path / "cut.tar": "whole|ends within",
        tmp_path / "cut-late.tar": "whole|ends within",
        tmp_path / "mixed": r"holds images \(0\.png\) and tar files",
        written("a.tar.gz", ""): "is compressed",
        written("a.doc", ""): "is a file, not a folder of images, and none of",
        written("empty.txt", "\n \n"): "lists no image",
        written("gone.txt", "x.jpg\ny.jpg\n"): r"none of the 2 images in .* is there",
        written("twice.txt", "a.jpg\n./a.jpg\n"): "names a.jpg twice",
        written("bad.json", "{"): "not a whole JSON file",
        written("list.json", "[]"): "lists no images: give a COCO JSON",
        written("entry.json", '{"images": [{"id": 1}]}'): "not a COCO JSON",
        written("twice.json", json.dumps({"images": twice})): "names a.jpg twice",
        written("ids.json", json.dumps({"images": same_id})): "two images one id",
        coco(tmp_path / "set" / "annotations" / "instances_x.json", ["q.jpg"]): r"q\.jpg\) are in none of",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message):
            open_source(path)


def test_a_shard_that_shrinks_during_a_run_makes_its_images_unreadable(shards: Path) -> None:
    source = open_source(shards)
    path = shards / "train-000.tar"
    path.write_bytes(path.read_bytes()[:600])
    for stored in (source[0], source[1]):
        with pytest.raises(UnreadableImageError):
            stored.read()
    assert source[2].read().size == (15, 6)
