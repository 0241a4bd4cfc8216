"""Lock a folder, so that only one process writes to it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ccop_hub.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"


@contextmanager
def folder_lock(folder: Path, name: str = LOCK_FILE, shared: bool = False) -> Iterator[None]:
    """Hold a lock on an existing folder. The operating system releases it even if the process is killed.

    On file systems without locks, such as some network file systems, no lock is taken.

    Args:
        folder: folder to lock.
        name: name of the lock file in the folder.
        shared: whether to take a shared lock, which many processes can hold at once if none has an exclusive one.

    Raises:
        UserError: another process holds the lock; the message names it.
    """
    file = _locked(folder / name, shared) if fcntl is not None else None
    try:
        yield
    finally:
        if file is not None:
            if not shared:
                with suppress(OSError):
                    (folder / name).unlink()  # while locked; waiting processes check that the file still exists
            file.close()


def _locked(path: Path, shared: bool) -> BinaryIO | None:
    while True:
        try:
            file = path.open("ab+", buffering=0)
        except OSError:
            return None  # the folder is not writable; the first write will report it
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).decode(errors="replace").strip() or "other processes"
            file.close()
            raise UserError(
                f"{path.parent} is being written by {holder}; wait until it ends, or give another --out"
            ) from None
        except OSError:
            file.close()
            return None
        if _is_at(file, path):
            break
        file.close()  # removed between opening and locking
    if not shared:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    return file


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False
