"""Opening files whose paths others chose: only regular files, and no more of them than is sensible.

Reading a FIFO waits for ever, and a device such as `/dev/zero` never ends.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path

MAX_TEXT = 64 << 20
"""Default limit of `read_regular` in bytes: far beyond any list, record or report."""

_KINDS = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "FIFO", stat.S_ISSOCK: "socket"}


def open_regular(path: Path) -> BufferedReader:
    """Open a file for reading; a FIFO, socket or device is refused without being opened.

    Raises:
        OSError: no such file, no permission, or not a regular file (`IsADirectoryError` for a folder, else `ENXIO`).
    """
    _require_regular(path, path.stat().st_mode)
    # Should the file be replaced by a FIFO just now, O_NONBLOCK opens that at once instead of waiting for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, limit: int = MAX_TEXT) -> bytes:
    """The contents of a regular file of at most `limit` bytes.

    Raises:
        OSError: as `open_regular`, or larger (`EFBIG`).
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit / 2**20:.4g} MiB", str(path))
        return file.read(size)


def read_text(path: Path, limit: int = MAX_TEXT, errors: str = "strict") -> str:
    """The text of a regular file of at most `limit` bytes, with its line ends turned into line feeds.

    It may be UTF-8, UTF-16 or UTF-32, with or without a byte order mark: Windows writes any of them.

    Args:
        path: the file.
        limit: in bytes.
        errors: what to do with bytes of no letter, as for `bytes.decode`.

    Raises:
        OSError: as `read_regular`.
        UnicodeDecodeError: other bytes than of the encoding.
    """
    data = read_regular(path, limit)
    return data.decode(json.detect_encoding(data), errors).replace("\r\n", "\n").replace("\r", "\n")


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((name for test, name in _KINDS.items() if test(mode)), "device")
    number = errno.EISDIR if kind == "folder" else errno.ENXIO
    raise OSError(number, f"a {kind}, not a regular file", str(path))
