"""Open files at untrusted paths: regular files only, up to a size limit.

Reading a FIFO would block forever, and a device such as `/dev/zero` never ends. `tests/repository/test_reading.py`
lists the few calls elsewhere that open a file for reading.
"""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

MAX_TEXT = 64 << 20
"""Default limit of `read_regular` in bytes, far above the size of any list, record or report."""

MAX_JSON = 8 << 20
"""Default limit of `read_json` in bytes; a parsed document takes up to 35 times its size (`{"":0}` repeated)."""

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


def read_json(path: Path, limit: int = MAX_JSON) -> Any:
    """Read a JSON file of at most `limit` bytes, in any Unicode encoding.

    Raises:
        OSError: as for `read_regular`.
        ValueError: the file is not JSON, contains NaN or infinity, or is nested too deeply.
    """
    return parse_json(read_regular(path, limit))


def parse_json(text: str | bytes, nan_as_null: bool = False) -> Any:
    """Parse untrusted JSON; unlike `json.loads`, raises only `ValueError`, also for NaN, infinity and deep nesting.

    The caller limits the size.

    Args:
        text: the document.
        nan_as_null: read the constants NaN and Infinity, which Python writes though JSON has none, as None.
    """
    constant = _as_null if nan_as_null else _refuse_constant
    try:
        document = json.loads(text, parse_constant=constant, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    return document


def _as_null(name: str) -> None:
    """Replace a constant that JSON does not have."""


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is too large for a number")
    return number


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISREG(mode):
        return
    kind = next((name for test, name in _KINDS.items() if test(mode)), "device")
    number = errno.EISDIR if kind == "folder" else errno.ENXIO
    raise OSError(number, f"a {kind}, not a regular file", str(path))
