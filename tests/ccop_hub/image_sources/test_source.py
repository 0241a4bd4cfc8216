import hashlib
import io
import json
import os
import tarfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.image_sources.source import open_source
from ccop_hub.image_sources.stored_images import ImageSource, listing_digest
from ccop_hub.images import UnreadableImageError

NAMES = ["a/0.png", "a/1.jpg", "b.webp", "é.tiff"]


def picture(name: str) -> Image.Image:
    """A picture in a single colour, which depends on its name."""
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
    long_name = "x" * 120 + ".jpg"  # too long for the tar header's name field
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


@pytest.mark.parametrize(
    "data",
    [
        "\ufeffb.webp\r\na/1.jpg\r\n".encode(),
        "b.webp\r\na/1.jpg\r\n".encode("utf-16"),  # PowerShell 5: dir -Name > list.txt
        "\ufeffb.webp\na/1.jpg".encode("utf-16-be"),
        "b.webp\ra/1.jpg\r".encode("utf-16-le"),  # without a byte order mark
        "b.webp\na/1.jpg".encode("utf-32"),
        b"b.webp\ra/1.jpg",
        b"# made by hand\nb.webp  \n\n  # another remark\na/1.jpg\t\n",
    ],
)
def test_lists_as_other_programs_write_them(folder: Path, data: bytes) -> None:
    (folder / "some.txt").write_bytes(data)
    assert open_source(folder / "some.txt").keys == ["a/1.jpg", "b.webp"]


def test_a_list_may_name_files_that_are_not_utf8(folder: Path) -> None:
    (folder / "some.txt").write_bytes(b"b.webp\ncaf\xe9.jpg\n./#1.jpg\n")
    assert open_source(folder / "some.txt").keys == ["#1.jpg", "b.webp", "caf\udce9.jpg"]


def test_a_damaged_link_and_other_files_are_counted(folder: Path) -> None:
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (folder / "note.doc").touch()
    source = open_source(folder)
    assert source.keys == sorted([*NAMES, "gone.jpg"])
    assert source.passed_over == {".doc": 1}


def test_the_digest_is_that_of_the_names_in_their_order(folder: Path) -> None:
    listings = {listing_digest(listing) for listing in (["a", "b"], ["b", "a"], ["ab"], ["a"], [])}
    assert len(listings) == 5
    digest = open_source(folder).digest
    assert digest == hashlib.sha256("".join(f"{name}\n" for name in NAMES).encode()).hexdigest()


def test_a_file_larger_than_any_image_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "large.jpg").open("wb") as file:
        file.truncate(70 << 20)  # sparse: takes no disk space
    stored = open_source(tmp_path)[0]
    assert len(stored.read_bytes()) == 70 << 20
    with pytest.raises(UnreadableImageError, match="73,400,320 bytes, more than 1000 pixels can need"):
        stored.read_bytes(max_pixels=1000)


def test_tar_shards_are_read_at_any_place(shards: Path) -> None:
    source = open_source(shards)
    assert source.passed_over == {".cls": 1}
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
    assert source.name == (tmp_path / "set" / place).resolve().name  # the same as for the folder
    assert source[3].read().size == picture("é.tiff").size


def test_a_coco_json_of_another_machine_finds_its_images(folder: Path, tmp_path: Path) -> None:
    foreign = ["C:\\photos\\" + NAMES[0].replace("/", "\\"), "train2017/" + NAMES[1], "/home/me/" + NAMES[2]]
    path = coco(tmp_path / "set" / "annotations" / "instances_train2017.json", [*foreign, quote(NAMES[3])])
    folder.rename(tmp_path / "set" / "train2017")
    path.write_bytes(path.read_text(encoding="utf-8").encode("utf-16"))
    source = open_source(path)
    assert source.keys == NAMES
    assert source.ids is not None
    assert sorted(source.ids.tolist()) == [97, 98, 99, 100]


def test_text_ids_and_repeated_entries_of_a_coco_json(folder: Path, tmp_path: Path) -> None:
    entries = [{"id": f"img{place}", "file_name": name} for place, name in enumerate(NAMES)]
    path = folder.parent / "instances_photos.json"
    path.write_text(json.dumps({"images": [*entries, entries[0]]}))
    folder.rename(folder.with_name("images"))
    moved = tmp_path / "set" / "annotations" / path.name
    moved.parent.mkdir(parents=True)
    path.rename(moved)
    folder.with_name("images").rename(tmp_path / "set" / "photos")
    source = open_source(moved)
    assert source.keys == NAMES
    assert source.ids is not None
    assert source.ids.tolist() == [1, 2, 3, 4]


def test_a_coco_folder_gives_its_training_images_alone(folder: Path, tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    folder.rename(root / "train2017")
    (root / "val2017").mkdir()
    picture("b.webp").save(root / "val2017" / "val.png")
    coco(root / "annotations" / "instances_val2017.json", ["val.png"])
    with pytest.raises(UserError, match=r"instances_val2017\.json in annotations: give the JSON or the folder"):
        open_source(root)
    coco(root / "annotations" / "instances_train2017.json", NAMES)
    assert open_source(root).keys == open_source(root / "train2017").keys == NAMES
    coco(root / "annotations" / "instances_train2014.json", NAMES)
    with pytest.raises(UserError, match="give the JSON"):
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
        tmp_path / "photos" / "*.webp": "is not a .tar file",
        tmp_path / "labels.tar": "no image in the 1 tar files",
        tmp_path / "packed.tar": "not a complete, uncompressed tar",
        tmp_path / "cut.tar": "complete|ends inside",
        tmp_path / "cut-late.tar": "complete|ends inside",
        tmp_path / "mixed": r"contains images \(0\.png\) and tar files",
        written("a.tar.gz", ""): "is compressed",
        written("a.doc", ""): "is neither a folder of images nor",
        written("empty.txt", "\n \n"): "lists no image",
        written("remarks.txt", "# a.jpg\n"): "lists no image",
        written("binary.txt", "ab\0c.jpg"): "zero bytes",
        written("gone.txt", "x.jpg\ny.jpg\n"): r"none of the 2 images in .* exists",
        written("twice.txt", "a.jpg\n./a.jpg\n"): "lists a.jpg twice",
        written("bad.json", "{"): "not a COCO JSON: line 1 column 2: the file ends here",
        written("none.json", '{"annotations": []}'): "lists no images: give a COCO JSON",
        written("list.json", "[]"): "not a COCO JSON: line 1 column 1: a list",
        written("entry.json", '{"images": [{"id": 1}]}'): "not a COCO JSON",
        written("twice.json", json.dumps({"images": twice})): "lists a.jpg twice",
        written("ids.json", json.dumps({"images": same_id})): "two images with id 1",
        coco(tmp_path / "set" / "annotations" / "instances_x.json", ["q.jpg"]): r"q\.jpg\) are not in any of",
    }
    for path, message in cases.items():
        with pytest.raises(UserError, match=message):
            open_source(path)


def damaged_tar(path: Path, pax: dict[str, str] | None = None, size_of_extension: int | None = None) -> Path:
    """A shard with an intact image, then one with a corrupt header."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, headers in (("0.png", {}), ("1.png", pax or {"comment": "x"})):
            entry = tarfile.TarInfo(name)
            entry.size, entry.pax_headers = len(encoded("a/0.png")), headers
            archive.addfile(entry, io.BytesIO(encoded("a/0.png")))
    if size_of_extension is not None:
        data = bytearray(path.read_bytes())
        place = 512 + -(-len(encoded("a/0.png")) // 512) * 512
        data[place + 124 : place + 136] = f"{size_of_extension:011o}\0".encode()
        data[place + 148 : place + 156] = b"        "
        data[place + 148 : place + 156] = f"{sum(data[place : place + 512]):06o}\0 ".encode()
        path.write_bytes(data)
    return path


def test_damaged_tar_headers_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"size\.tar .*inside 1\.png, or the member's size, -5, is wrong"):
        open_source(damaged_tar(tmp_path / "size.tar", {"size": "-5"}))
    with pytest.raises(UserError, match=r"huge\.tar .*1\.png.* 87,000,000,000,000,000"):
        open_source(damaged_tar(tmp_path / "huge.tar", {"size": "87000000000000000"}))
    # tarfile would read all of it into memory.
    with pytest.raises(UserError, match=r"extension\.tar .*size of the extension header .* is 8,000,000,000"):
        open_source(damaged_tar(tmp_path / "extension.tar", size_of_extension=8_000_000_000))
    # tarfile would treat it as the end of the archive and drop what follows.
    path = damaged_tar(tmp_path / "middle.tar")
    data = bytearray(path.read_bytes())
    place = 512 + -(-len(encoded("a/0.png")) // 512) * 512
    data[place : place + 5] = b"?????"
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"middle\.tar .*header at byte"):
        open_source(path)


def test_members_that_operating_systems_add_are_no_images(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", {"__MACOSX/._0.png": b"", "__MACOSX/0.png": b"", "0.png": encoded("a/0.png")})
    assert open_source(tmp_path / "s.tar").keys == ["s.tar/0.png"]


def test_a_shard_that_shrinks_during_a_run_makes_its_images_unreadable(shards: Path) -> None:
    source = open_source(shards)
    path = shards / "train-000.tar"
    path.write_bytes(path.read_bytes()[:600])
    for stored in (source[0], source[1]):
        with pytest.raises(UnreadableImageError):
            stored.read()
    assert source[2].read().size == (15, 6)


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def test_links_within_a_shard_are_images_like_files(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    write_tar(path, {"./d/a.png": encoded("a/0.png")})
    with tarfile.open(path, "a") as archive:
        archive.addfile(link("d/hard.png", "./d/a.png", tarfile.LNKTYPE))
        archive.addfile(link("e/soft.png", "../d/hard.png", tarfile.SYMTYPE))
        archive.addfile(link("e/outside.png", "../../a.png", tarfile.SYMTYPE))
    source = open_source(path)
    assert source.keys == ["s.tar/d/a.png", "s.tar/d/hard.png", "s.tar/e/soft.png"]
    assert {image.read_bytes() for image in source} == {encoded("a/0.png")}
    assert source.passed_over == {".png": 1}


def test_concatenated_shards_are_read_as_one(tmp_path: Path) -> None:
    write_tar(tmp_path / "1.tar", {"a.png": encoded("a/0.png")})
    write_tar(tmp_path / "2.tar", {"b.jpg": encoded("a/1.jpg")})
    (tmp_path / "both").mkdir()
    both = tmp_path / "both" / "s.TAR"
    parts = [(tmp_path / name).read_bytes() for name in ("1.tar", "2.tar")]
    both.write_bytes(parts[0] + parts[1] + b"text after the end" * 100)
    source = open_source(both.parent)
    assert source.keys == ["s.TAR/a.png", "s.TAR/b.jpg"]
    assert source[1].read_bytes() == encoded("a/1.jpg")
    os.truncate(both, 1 << 40)
    assert len(open_source(both)) == 2, "a terabyte of zeros is not searched"
    both.write_bytes(parts[0] + parts[1][:600])
    with pytest.raises(UserError, match=r"it ends inside b\.jpg"):
        open_source(both)


def test_sparse_members_and_folders_with_the_suffix_are_passed_over(tmp_path: Path) -> None:
    path = damaged_tar(tmp_path / "s.tar", {"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999"})
    assert open_source(path).passed_over[".png"] >= 1
    (tmp_path / "photos" / "x.tar").mkdir(parents=True)
    (tmp_path / "photos" / "x.tar" / "0.png").write_bytes(encoded("a/0.png"))
    assert open_source(tmp_path / "photos").keys == ["x.tar/0.png"]


@pytest.mark.parametrize("pattern", ["s-{0..999999999}.tar", "s-{0..9999}{0..9999}.tar"])
def test_a_pattern_of_too_many_shards_is_refused(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UserError, match="more than 1000000 shards"):
        open_source(tmp_path / pattern)


def test_a_list_of_shards_and_what_is_no_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "shards.txt").write_text("s-0.tar\n")
    with pytest.raises(UserError, match=r"lists tar shards \(s-0\.tar\)"):
        open_source(tmp_path / "shards.txt")
    os.mkfifo(tmp_path / "s.tar")
    with pytest.raises(UserError, match=r"s\.tar is neither a file nor a folder"):
        open_source(tmp_path / "s.tar")
