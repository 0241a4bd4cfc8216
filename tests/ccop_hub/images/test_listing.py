import os
import sys
from pathlib import Path

import pytest

from ccop_hub.errors import UserError
from ccop_hub.images import describe_passed_over, list_folders, list_images, scan_images


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_listing_is_sorted_relative_and_recursive(tmp_path: Path) -> None:
    for name in ("b.PNG", "a/z.jpeg", "a.jpg", "a/b/c.tiff", "B.webp", "note.txt", ".hidden.jpg", ".git/x.jpg"):
        touch(tmp_path / name)
    (tmp_path / "folder.jpg").mkdir()
    assert list_images(tmp_path) == ["B.webp", "a.jpg", "a/b/c.tiff", "a/z.jpeg", "b.PNG"]


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    root, other = tmp_path / "root", tmp_path / "other"
    touch(root / "z" / "real.jpg")
    touch(other / "linked.jpg")
    (root / "a-link-to-z").symlink_to(root / "z")
    (root / "z" / "loop").symlink_to(root)
    (root / "other").symlink_to(other)
    (other / "back").symlink_to(root)
    (root / "broken.jpg").symlink_to(tmp_path / "nowhere.jpg")
    # A dangling symlink is listed, so that it counts as unreadable later instead of silently vanishing.
    assert list_images(root) == ["broken.jpg", "other/linked.jpg", "z/real.jpg"]


def test_no_listing_without_images(tmp_path: Path) -> None:
    touch(tmp_path / "note.txt")
    with pytest.raises(UserError, match="contains no image"):
        list_images(tmp_path)
    with pytest.raises(UserError, match="is a file"):
        list_images(tmp_path / "note.txt")
    with pytest.raises(UserError, match="does not exist"):
        list_images(tmp_path / "absent")


def test_files_of_the_operating_system_are_no_images(tmp_path: Path) -> None:
    for name in (".ipynb_checkpoints/a.jpg", "__MACOSX/a.jpg", "@eaDir/a.jpg", "._a.jpg", "Thumbs.db", ".DS_Store"):
        touch(tmp_path / name)
    touch(tmp_path / "cat" / "a.jpg")
    found = scan_images(tmp_path)
    assert found.images == ["cat/a.jpg"]
    assert found.passed_over == {}
    assert list_folders(tmp_path) == ["cat"]


def test_other_files_are_counted_by_suffix(tmp_path: Path) -> None:
    for name in ("a.jpg", "a.xml", "b/c.XML", "IMG_1.CR2", "README"):
        touch(tmp_path / name)
    found = scan_images(tmp_path)
    assert found.images == ["a.jpg"]
    assert found.passed_over == {"": 1, ".cr2": 1, ".xml": 2}
    told = describe_passed_over(found.passed_over)
    assert told.startswith("4 other files: 2 .xml")
    assert "1 without a suffix" in told
    assert "1 .cr2 (raw photographs" in told
    assert describe_passed_over({}) == ""
    assert describe_passed_over({f".{letter}": 1 for letter in "abcdefg"}).endswith("1 .e, 2 more")


def test_a_folder_of_phone_or_raw_photographs_says_why_nothing_is_found(tmp_path: Path) -> None:
    touch(tmp_path / "IMG_1.CR2")
    with pytest.raises(UserError, match=r"contains no image, only 1 other file: 1 \.cr2 \(raw photographs: develop"):
        list_images(tmp_path)


def test_excluded_folders_are_left_out_by_any_path_to_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "out/pictures/b.jpg", "out2/c.jpg"):
        touch(tmp_path / name)
    (tmp_path / "link").symlink_to(tmp_path / "out")
    assert list_images(tmp_path, exclude=[tmp_path / "out"]) == ["a.jpg", "out2/c.jpg"]
    monkeypatch.chdir(tmp_path / "out2")
    assert list_images(tmp_path, exclude=[Path("../link"), Path("../absent")]) == ["a.jpg", "out2/c.jpg"]
    assert list_images(tmp_path, exclude=[tmp_path]) == ["a.jpg", "out/pictures/b.jpg", "out2/c.jpg"]


def test_results_of_the_programs_are_no_images(tmp_path: Path) -> None:
    for name in ("a.jpg", "run/settings.yaml", "run/metrics.csv", "run/views.png", "run/epoch/sheet.png"):
        touch(tmp_path / name)
    for name in ("scenes/settings.yaml", "scenes/train2017/0.png"):
        touch(tmp_path / name)
    assert list_images(tmp_path) == ["a.jpg", "scenes/train2017/0.png"]
    assert list_images(tmp_path / "run") == ["epoch/sheet.png", "views.png"]  # explicitly requested


def test_special_files_called_images_are_listed_to_be_named_later(tmp_path: Path) -> None:
    touch(tmp_path / "a.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    assert list_images(tmp_path) == ["a.jpg", "loop.jpg", "zero.jpg"]


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="Linux takes any bytes for a file name")
def test_names_that_are_not_utf8_are_listed(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).touch()
    assert [os.fsencode(name) for name in list_images(tmp_path)] == [b"caf\xe9.jpg"]
