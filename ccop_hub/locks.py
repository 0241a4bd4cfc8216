"""Lock what a process writes, so that a second one is refused, or waits visibly where it needs the same files."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from .errors import UserError
from .files import check_replaceable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK_FILE = ".lock"

_POLL = 0.1
"""Seconds between attempts to take a lock that another process holds."""

_held: set[BinaryIO] = set()
"""Lock files open in this process."""


@contextmanager
def folder_lock(folder: Path, name: str = LOCK_FILE, shared: bool = False) -> Iterator[None]:
    """Hold a lock on an existing folder.

    The operating system releases the lock when the process ends, even if it is killed, so the lock file that it leaves
    behind locks nobody out. No lock is taken where the folder is read-only, on file systems without locks (NFS mounted
    with `nolock`), and on Windows.

    Args:
        folder: folder to lock.
        name: name of the lock file in the folder.
        shared: whether to take a shared lock, which many processes can hold at once if none has an exclusive one.

    Raises:
        UserError: another process holds the lock; the message names it.
    """
    with _lock(folder / name, folder, shared):
        yield


@contextmanager
def output_lock(path: Path) -> Iterator[None]:
    """Hold a lock on a file or folder that does not exist yet, by a lock file next to it; see `folder_lock`.

    Args:
        path: the output. Its parent folder must exist.

    Raises:
        UserError: another process is writing `path`, or `path` is a pipe, socket or device; the message names it.
    """
    path = path.absolute()
    check_replaceable(path)
    with _lock(_beside(path), path, shared=False):
        yield


def discard_abandoned_lock(path: Path) -> None:
    """Remove the lock file beside a finished output whose writer was killed, unless another process holds it."""
    file = _beside(path.absolute())
    if file.exists():
        with suppress(UserError), _lock(file, path, shared=False):
            pass  # releasing the lock removes the file


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name[:100]}{LOCK_FILE}")


@contextmanager
def waiting_lock(file: Path, work: str) -> Iterator[None]:
    """Wait for processes that prepare the same cached files; the first one to wait for is named on standard error.

    Args:
        file: lock file; its folder must exist.
        work: what the other process does, to complete "waiting for process ..., which ...".
    """
    announced = False
    while True:
        try:
            opened = _opened(file, file.parent, shared=False)
            break
        except _HeldError as error:
            if not announced:
                print(f"waiting for {error.holder}, which {work}", file=sys.stderr, flush=True)
                announced = True
            time.sleep(_POLL)
    with _releasing(opened, file, shared=False):
        yield


class _HeldError(UserError):
    """Another process holds a lock.

    Attributes:
        holder: description of that process.
    """

    def __init__(self, what: Path, holder: str) -> None:
        super().__init__(f"{what} is being written by {holder}; wait until it ends, or give another --out")
        self.holder = holder


@contextmanager
def _lock(file: Path, what: Path, shared: bool) -> Iterator[None]:
    with _releasing(_opened(file, what, shared), file, shared):
        yield


@contextmanager
def _releasing(opened: BinaryIO | None, file: Path, shared: bool) -> Iterator[None]:
    try:
        yield
    finally:
        if opened is not None:
            if not shared:
                with suppress(OSError):
                    file.unlink()  # while locked; waiting processes check that the file still exists
            _held.discard(opened)
            opened.close()


def _opened(path: Path, what: Path, shared: bool) -> BinaryIO | None:
    """Open and lock a lock file; None if there are no locks in its folder."""
    return _locked(path, what, shared) if fcntl is not None else None


def _locked(path: Path, what: Path, shared: bool) -> BinaryIO | None:
    while True:
        try:
            file = path.open("ab+", buffering=0)
        except OSError:
            return None  # the folder is not writable; the first write will report it
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            with file:
                raise _HeldError(what, _holder(file)) from None
        except OSError:
            file.close()
            with suppress(OSError):
                path.unlink()  # no locks here: the file would only be litter
            return None
        if _is_at(file, path):
            break
        file.close()  # removed between opening and locking
    if not shared:
        with suppress(OSError):  # on a full disk, the lock holds without its owner's name
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    _held.add(file)
    return file


def _holder(file: BinaryIO) -> str:
    """Return the name that the owner of a lock wrote; shared locks have none."""
    for _ in range(5):
        file.seek(0)
        if name := file.read(200).decode(errors="replace").strip():
            return name
        time.sleep(0.02)  # the owner may be about to write it
    return "other processes"


def _is_at(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except OSError:
        return False


def _leave_locks() -> None:
    """Close the lock files in a forked process, such as a reader, which would hold them when its parent is killed."""
    for file in _held:
        with suppress(OSError):
            file.close()
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_locks)
