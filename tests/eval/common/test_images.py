import os

import pytest
from ccop_eval.common.images import ClassFolders, require_regular
from PIL import Image

from ccop_hub.errors import UserError


@pytest.fixture
def folders(tmp_path):
    """Two class folders of one image each."""
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "a.png")
    return tmp_path


@pytest.mark.parametrize("other", [".ipynb_checkpoints", "__MACOSX", ".git"])
def test_folders_that_systems_leave_are_no_classes(folders, other):
    (folders / other).mkdir()
    Image.new("RGB", (8, 8)).save(folders / other / "a-checkpoint.png")
    (folders / "cat" / "Thumbs.db").write_bytes(b"x")
    (folders / "cat" / other).mkdir()
    Image.new("RGB", (8, 8)).save(folders / "cat" / other / "a.png")
    found = ClassFolders.read(folders)
    assert found.classes == ["cat", "dog"]
    assert [path.relative_to(folders).as_posix() for path in found.paths] == ["cat/a.png", "dog/a.png"]


def test_link_to_nothing_is_an_unreadable_image_and_not_left_out(folders):
    (folders / "cat" / "b.jpg").symlink_to("../annex/b.jpg")
    found = ClassFolders.read(folders)
    assert len(found.paths) == 3
    with pytest.raises(UserError, match=r"cat/b\.jpg.*restore or remove"):
        require_regular(found.paths)


def test_fifo_is_refused_without_waiting_for_a_writer(folders):
    os.mkfifo(folders / "dog" / "b.png")
    with pytest.raises(UserError, match=r"dog/b\.png: a FIFO"):
        require_regular(ClassFolders.read(folders).paths)
