from __future__ import annotations

import errno
import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest
import torch

from ccop_hub import files
from ccop_hub.errors import UserError
from ccop_hub.files import (
    bytes_digest,
    check_folder,
    file_digest,
    files_digest,
    has_digest,
    is_temporary,
    make_folder,
    remove_temporary_files,
    replacing,
    scratch_folder,
    write_atomically,
)
from ccop_hub.locks import output_lock
from ccop_hub.stopping import Stopped


def test_bytes_and_text_are_written_as_they_are(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", b"\x00\r\n")
    write_atomically(tmp_path / "b", "ä\r\n")
    assert (tmp_path / "a").read_bytes() == b"\x00\r\n"
    assert (tmp_path / "b").read_bytes() == "ä\r\n".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_the_temporary_file_is_beside_the_final_one_and_names_the_process(tmp_path: Path) -> None:
    with replacing(tmp_path / "a.npy") as temporary:
        assert temporary.parent == tmp_path
        assert str(os.getpid()) in temporary.name
        assert is_temporary(temporary)
        with temporary.open("wb") as file:
            np.save(file, np.arange(3))
        assert not (tmp_path / "a.npy").exists()
    assert np.load(tmp_path / "a.npy").tolist() == [0, 1, 2]
    assert not is_temporary(tmp_path / "a.npy")


def fail_halfway(path: Path, error: BaseException) -> None:
    with replacing(path) as temporary:
        temporary.write_text("half")
        raise error


@pytest.mark.parametrize(
    "error", [ValueError("bad"), KeyboardInterrupt(), FileNotFoundError(errno.ENOENT, "no", "other")]
)
def test_a_failed_block_leaves_the_old_file_and_its_own_error(error: BaseException, tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "old")
    with pytest.raises(type(error)) as raised:
        fail_halfway(tmp_path / "a", error)
    assert raised.value is error
    assert (tmp_path / "a").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupt_is_not_hidden_by_a_writer_that_fails_to_close(tmp_path: Path) -> None:
    class Interrupting:
        def __init__(self, file: BinaryIO) -> None:
            self.file, self.calls = file, 0

        def write(self, data: bytes) -> int:
            self.calls += 1
            if self.calls == 3:
                raise Stopped(signal.SIGTERM)
            return self.file.write(data)

        def flush(self) -> None:
            self.file.flush()

    def save() -> None:
        with replacing(tmp_path / "a.pth") as temporary, temporary.open("wb") as file:
            torch.save({"a": torch.zeros(1000)}, Interrupting(file))

    with pytest.raises(Stopped):
        save()
    assert list(tmp_path.iterdir()) == []


def test_errors_name_the_final_path(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("")
    with pytest.raises(UserError, match=r"absent/a \(No such file") as raised:
        write_atomically(tmp_path / "absent" / "a", b"")
    assert ".partial" not in str(raised.value)
    with pytest.raises(UserError, match=r"folder: it is a folder"):
        write_atomically(tmp_path / "folder", b"")
    with pytest.raises(UserError, match=r"cannot write .*model\.pth \(No space left on device\); free some space"):
        fail_halfway(tmp_path / "model.pth", OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(UserError, match=r"x/a \(Not a directory\)"):
        write_atomically(tmp_path / "folder" / "x" / "a", b"")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["folder", "x"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_under_torch_is_told_by_its_own_reason(tmp_path: Path) -> None:
    def write() -> None:
        with replacing(tmp_path / "a.pth") as temporary:
            temporary.symlink_to("/dev/full")
            with temporary.open("wb") as file:
                torch.save({"a": torch.zeros(1 << 18)}, file)

    with pytest.raises(UserError, match=r"a\.pth \(No space left on device\)"):
        write()
    assert not list(tmp_path.iterdir())


def test_a_failed_copy_into_the_temporary_file_is_told_by_the_final_path(tmp_path: Path) -> None:
    def copy() -> None:
        with replacing(tmp_path / "a") as temporary:
            raise OSError(errno.ENOSPC, "No space left on device", "/tmp/elsewhere", None, str(temporary))

    with pytest.raises(UserError, match=r"cannot write .*/a \(No space left on device\); free"):
        copy()


def test_a_name_near_the_file_systems_limit(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("x" * 250), b"1")
    assert (tmp_path / ("x" * 250)).read_bytes() == b"1"


def test_a_link_stays_and_the_file_behind_it_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "real").write_text("old")
    (tmp_path / "link").symlink_to("disk/real")
    (tmp_path / "ahead").symlink_to("disk/new")
    write_atomically(tmp_path / "link", "one")
    write_atomically(tmp_path / "ahead", "two")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "ahead").is_symlink()
    assert {path.name: path.read_text() for path in (tmp_path / "disk").iterdir()} == {"real": "one", "new": "two"}
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match="loop"):
        write_atomically(tmp_path / "loop", "three")
    assert (tmp_path / "loop").is_symlink()


def test_pipes_sockets_and_devices_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/null")  # never the device itself: a bug could delete it from the machine
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
    for name in ("pipe", "device", "socket"):
        with pytest.raises(UserError, match=rf"cannot write .*/{name}: it is a {name}, not a file; choose another"):
            write_atomically(tmp_path / name, "contents")
        with pytest.raises(UserError, match=f"it is a {name}"), output_lock(tmp_path / name):
            pytest.fail("locked")
    assert {path.name for path in tmp_path.iterdir()} == {"pipe", "device", "socket"}
    assert Path("/dev/null").is_char_device()


def test_what_is_in_the_way_of_a_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("absent/there")
    for make in (check_folder, make_folder):
        for place in (tmp_path / "file", tmp_path / "file" / "below" / "it"):
            with pytest.raises(UserError, match=rf"{tmp_path}/file is a file, but a folder is needed there: choose"):
                make(place)
        with pytest.raises(UserError, match="dangling is a link to absent/there, which leads nowhere"):
            make(tmp_path / "dangling" / "below")
        with pytest.raises(UserError, match="loop is a link to loop, which leads nowhere"):
            make(tmp_path / "loop")
        with pytest.raises(UserError, match=r"File name too long.*choose a shorter name"):
            make(tmp_path / ("x" * 300))
    assert {path.name for path in tmp_path.iterdir()} == {"file", "loop", "dangling"}


def test_a_folder_is_checked_without_making_it(tmp_path: Path) -> None:
    check_folder(tmp_path)
    check_folder(tmp_path / "new" / "folder")
    assert not list(tmp_path.iterdir())
    make_folder(tmp_path / "new" / "folder")
    assert (tmp_path / "new" / "folder").is_dir()


_WRITER = """
import sys
from pathlib import Path
from ccop_hub.files import write_atomically
for turn in range(20):
    write_atomically(Path(sys.argv[1]), sys.argv[2].encode() * 100_000, sync=False)
"""


def test_eight_writers_never_leave_a_mixed_or_short_file(tmp_path: Path) -> None:
    target = tmp_path / "shared"
    write_atomically(target, b"0" * 100_000)
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, target, letter]) for letter in "abcdefgh"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        content = target.read_bytes()
        assert len(content) == 100_000
        assert len(set(content)) == 1
        seen.add(content[:1])
    assert [writer.returncode for writer in writers] == [0] * 8
    assert seen - {b"0"}
    assert [path.name for path in tmp_path.iterdir()] == ["shared"]


_KILLED = """
import os, signal, sys
from pathlib import Path
from ccop_hub.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_writer_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a", "old")
    done = subprocess.run([sys.executable, "-c", _KILLED, tmp_path / "a"], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = [path for path in tmp_path.iterdir() if path.name != "a"]
    assert (tmp_path / "a").read_text() == "old"
    folder = tmp_path / left.name.replace(".a.", ".folder.")
    folder.mkdir()
    (folder / "half").touch()
    elsewhere = tmp_path / left.name.replace(files._machine(), "0" * 8)
    unnamed = tmp_path / ".a.123-00000000.partial"
    for path in (elsewhere, unnamed):
        path.touch()
    files._tidied.clear()
    with replacing(tmp_path / "c") as of_live_process:
        of_live_process.write_text("new")
        old = time.time() - 7200
        os.utime(of_live_process, (old, old))
        files._tidied.clear()
        write_atomically(tmp_path / "b", "new")
        assert of_live_process.exists()
        assert not left.exists()
        assert not folder.exists()
        assert elsewhere.exists()  # its process may be alive there
        assert unnamed.exists()
        for path in (elsewhere, unnamed):
            os.utime(path, (old, old))
        files._tidied.clear()
        write_atomically(tmp_path / "b", "new")
        assert not elsewhere.exists()
        assert not unnamed.exists()
    folder.mkdir()
    (tmp_path / f".d.{os.getpid()}-00000000.partial").write_text("half")
    remove_temporary_files(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_digests(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    sha256, md5 = hashlib.sha256(b"abc").hexdigest(), hashlib.md5(b"abc").hexdigest()
    assert file_digest(tmp_path / "a") == bytes_digest(b"abc") == f"sha256:{sha256}"
    assert file_digest(tmp_path / "a", "md5") == bytes_digest(b"abc", "md5") == f"md5:{md5}"
    assert has_digest(tmp_path / "a", f"md5:{md5[:8].upper()}")
    assert not has_digest(tmp_path / "a", f"md5:{md5[1:9]}")


def test_the_digest_of_many_files_is_of_names_and_contents(tmp_path: Path) -> None:
    for name, content in (("b", b"2"), ("a", b"1")):
        (tmp_path / name).write_bytes(content)
    both = [tmp_path / "b", tmp_path / "a"]
    lines = "".join(
        f"{name}\0sha256:{hashlib.sha256(content).hexdigest()}\n" for name, content in (("a", b"1"), ("b", b"2"))
    )
    assert files_digest(tmp_path, both) == f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"
    assert files_digest(tmp_path, both[:1]) != files_digest(tmp_path, both)


def test_an_error_of_the_system_in_a_scratch_folder_names_the_target(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    def fail() -> None:
        with scratch_folder(tmp_path / "there") as scratch:
            assert scratch.parent == tmp_path / "there"  # its siblings may be on another disk
            (scratch / "absent").replace(tmp_path / "there" / "absent")

    with pytest.raises(UserError, match=rf"cannot write {tmp_path}/there \(No such file"):
        fail()
    assert not list((tmp_path / "there").iterdir())


def test_a_signal_when_a_scratch_folder_has_just_been_made_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def interrupted(path: Path, *arguments: int, **options: bool) -> None:
        mkdir(path, *arguments, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "mkdir", interrupted)
    with pytest.raises(KeyboardInterrupt), scratch_folder(tmp_path / "a.pkl"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_is_beside_its_target_and_errors_name_that(tmp_path: Path) -> None:
    with scratch_folder(tmp_path / "a.pkl") as scratch:
        assert scratch.parent == tmp_path
        (scratch / "a.pkl").write_text("x")
    assert not list(tmp_path.iterdir())

    def fail() -> None:
        with scratch_folder(tmp_path / "a.pkl") as scratch:
            write_atomically(scratch / "a.pkl" / "b", "x")

    with pytest.raises(UserError, match=rf"cannot write {tmp_path}/a\.pkl/b \("):
        fail()
    with (
        pytest.raises(UserError, match=r"cannot write .*absent/a\.pkl \("),
        scratch_folder(tmp_path / "absent" / "a.pkl"),
    ):
        pass
    assert not list(tmp_path.iterdir())
