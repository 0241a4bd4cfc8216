import os
from pathlib import Path

import pytest

from ccop_hub.regular_files import open_regular, read_regular, read_text


def test_a_regular_file_is_read_up_to_its_limit(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"1\r\n2\r3\n")
    assert read_regular(tmp_path / "a", 7) == b"1\r\n2\r3\n"
    assert read_text(tmp_path / "a") == "1\n2\n3\n"
    with pytest.raises(OSError, match="larger than") as caught:
        read_regular(tmp_path / "a", 6)
    assert caught.value.filename == str(tmp_path / "a")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-le"])
def test_text_is_read_in_any_unicode_encoding(tmp_path: Path, encoding: str):
    (tmp_path / "a").write_bytes("Straße\r\n日本".encode(encoding))
    assert read_text(tmp_path / "a") == "Straße\n日本"


def test_bytes_of_no_letter_are_kept_or_refused(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"caf\xe9")
    assert read_text(tmp_path / "a", errors="surrogateescape") == "caf\udce9"
    with pytest.raises(UnicodeDecodeError):
        read_text(tmp_path / "a")


def test_what_would_never_end_is_refused_without_being_opened(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    for path, kind in ((tmp_path / "fifo", "FIFO"), (tmp_path, "folder"), (Path("/dev/zero"), "device")):
        with pytest.raises(OSError, match=f"a {kind}, not a regular file"):
            open_regular(path)
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)
