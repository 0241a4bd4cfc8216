"""Open files at untrusted paths: regular files only, up to a size limit.

Reading a FIFO would block forever, and a device such as `/dev/zero` never ends.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from pathlib import Path

MAX_TEXT = 64 << 20
"""Default limit of `read_regular` in bytes, far above the size of any list, record or report."""

_KINDS = {stat.S_ISDIR: "folder", stat.S_ISFIFO: "FIFO", stat.S_ISSOCK: "socket"}


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading; FIFOs, sockets and devices are rejected without opening them.

    Raises:
        OSError: the file is missing, not accessible, or not a regular file (`IsADirectoryError` for a folder, else
            `ENXIO`).
    """
    _require_regular(path, path.stat().st_mode)
    # If the file is replaced by a FIFO at this moment, O_NONBLOCK keeps `open` from waiting for a writer.
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, limit: int = MAX_TEXT) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        OSError: as for `open_regular`, or the file is larger (`EFBIG`).
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"larger than {limit / 2**20:.4g} MiB", str(path))
        return file.read(size)


def read_text(path: Path, limit: int = MAX_TEXT, errors: str = "strict") -> str:
    """Read a text file of at most `limit` bytes, converting line endings to line feeds.

    Accepts UTF-8, UTF-16 and UTF-32, with or without a byte order mark, since Windows programs write all of them.

    Args:
        path: the file.
        limit: maximum size in bytes.
        errors: how to handle invalid bytes, as for `bytes.decode`.

    Raises:
        OSError: as for `read_regular`.
        UnicodeDecodeError: the file contains invalid bytes.
    """
    data = read_regular(path, limit)
    return data.decode(json.detect_encoding(data), errors).replace("\r\n", "\n").replace("\r", "\n")


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((name for test, name in _KINDS.items() if test(mode)), "device")
    number = errno.EISDIR if kind == "folder" else errno.ENXIO
    raise OSError(number, f"a {kind}, not a regular file", str(path))
