"""Write files atomically and compute digests."""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import UserError
from .regular_files import open_regular
from .stopping import interrupt_behind

_SUFFIX = ".partial"
_TEMPORARY = re.compile(
    r"\.(?P<name>.+)\.(?:(?P<machine>[0-9a-f]{8})-)?(?P<process>\d+)-[0-9a-f]{8}\.partial", re.DOTALL
)
_LONGEST_NAME = 200
"""Bytes of a file name kept in its temporary name; most file systems allow 255 in total."""

_ABANDONED_AFTER = 3600.0
"""Seconds without a write before another machine's temporary file is removed. Its writer could still be alive there."""

_tidied: set[Path] = set()

_REMEDIES = {
    errno.ENOSPC: "free some space on the disk",
    errno.EDQUOT: "free some of your quota",
    errno.EROFS: "choose a folder on a writable disk",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "choose another path",
    errno.ENOENT: "choose a path in a folder that exists",
}


@contextlib.contextmanager
def replacing(path: Path, sync: bool = True) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block succeeds.

    Readers of `path` see either the old file or the complete new one, even with several concurrent writers: each writes
    to a separate temporary file in the same folder, and the last one to finish wins. The temporary file is removed if
    the block fails. If the process is killed, the next one on this machine to write to the folder removes it.

    Symbolic links are followed: their target is replaced and the link is kept.

    Args:
        path: the final file. Its folder must exist.
        sync: flush to disk before replacing, so that the file survives a power failure intact. Disable this only for
            many small files that can be recreated.

    Raises:
        UserError: the file cannot be written, or `path` is a pipe, socket or device; the message names `path` and the
            reason. Other errors propagate.
    """
    check_replaceable(path)
    target = _behind_links(path)
    _remove_abandoned(target.parent)
    temporary = target.with_name(_temporary_name(target.name))
    with writing_whole(path, temporary):
        yield temporary
        if sync:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(target)


@contextlib.contextmanager
def writing_whole(path: Path, temporary: Path) -> Iterator[None]:
    """Report a failed write as `replacing` does, where a library writes to a temporary file of its own choice.

    Args:
        path: the final file, for the message.
        temporary: the file that the block writes to; removed if the block fails.

    Raises:
        UserError: the file cannot be written; the message names `path` and the reason. Other errors propagate.
    """
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError | RuntimeError):
            if (interrupt := interrupt_behind(error)) is not None:
                raise interrupt from None
            if (cause := _write_error(error, temporary)) is not None:
                raise _cannot_write(path, cause) from error
        raise


def write_atomically(path: Path, content: bytes | str, sync: bool = True) -> None:
    """Write `content` to `path` with `replacing`.

    Text is written as UTF-8, with unchanged line endings. What UTF-8 cannot express, such as a file name in another
    encoding, is written as backslash escapes.
    """
    with replacing(path, sync) as temporary:
        temporary.write_bytes(content.encode(errors="backslashreplace") if isinstance(content, str) else content)


@contextlib.contextmanager
def scratch_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder for files to check before moving them to `path`; removed at the end.

    The folder is created next to `path`, or inside it if `path` is a folder, to stay on the same disk.

    Raises:
        UserError: the location is not writable. If the block fails on a file with the same name as `path`, the error
            names `path` instead.
    """
    place = path if path.is_dir() else path.parent
    _remove_abandoned(place)
    scratch = place / _temporary_name(path.name)
    try:  # from before the folder exists, since a stop signal may arrive at any point
        try:
            scratch.mkdir(mode=0o700)
        except OSError as error:
            raise _cannot_write(path, error) from error
        yield scratch
    except UserError as error:
        error.args = (str(error).replace(str(scratch / path.name), str(path)),)
        raise
    except OSError as error:
        # A failed write names no file; the block writes nowhere else.
        if error.filename is not None and str(scratch) not in f"{error.filename} {error.filename2}":
            raise
        raise _cannot_write(path, error) from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, unless they exist.

    Raises:
        UserError: the folder cannot be created; the message names the path and the reason.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _no_folder(path, error) from error


_SPECIAL = {
    stat.S_ISFIFO: "a pipe",
    stat.S_ISSOCK: "a socket",
    stat.S_ISCHR: "a device",
    stat.S_ISBLK: "a device",
}


def check_replaceable(path: Path) -> None:
    """Check that a path is no pipe, socket or device: opening it could wait forever or overwrite a disk.

    Raises:
        UserError: it is one of these.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return
    for is_special, what in _SPECIAL.items():
        if is_special(mode):
            raise UserError(f"cannot write {path}: it is {what}, not a file; choose another path")


def check_folder(path: Path) -> None:
    """Check that a folder is writable or could be created, without creating it.

    Raises:
        UserError: as for `make_folder`.
    """
    try:
        with contextlib.suppress(FileNotFoundError):
            path.lstat()  # fails if a name is too long or a parent is a file
        existing = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise _no_folder(path, error) from error


def is_temporary(path: Path) -> bool:
    """Whether a path has the name of a temporary file made by `replacing`."""
    return path.name.endswith(_SUFFIX)


def was_interrupted(path: Path) -> bool:
    """Whether a killed process left a temporary file or folder that would have become `path`."""
    with contextlib.suppress(OSError):
        for left in path.parent.glob(f".*{_SUFFIX}"):
            match = _TEMPORARY.fullmatch(left.name)
            if match is None or match["name"] != _shortened(path.name):
                continue
            if match["machine"] != _machine() or not _is_running(int(match["process"])):
                return True
    return False


def final_path(path: Path) -> Path:
    """Return the final path of a temporary file; other paths are returned unchanged."""
    match = _TEMPORARY.fullmatch(path.name)
    if match is not None:
        return path.with_name(match["name"])
    name = path.name.removesuffix(_SUFFIX).removeprefix(".")
    return path.with_name(name) if name and is_temporary(path) else path


def remove_temporary_files(folder: Path) -> None:
    """Delete the temporary files in a folder; no other process may be writing to it."""
    for path in folder.glob(f"*{_SUFFIX}"):
        _remove(path)


def bytes_digest(content: bytes, algorithm: str = "sha256") -> str:
    """Return `sha256:` (or another algorithm of `hashlib`) + hex digest of `content`."""
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Return `sha256:` (or another algorithm of `hashlib`) + hex digest of a file's contents."""
    with open_regular(path) as stream:
        return f"{algorithm}:{hashlib.file_digest(stream, algorithm).hexdigest()}"


def has_digest(path: Path, expected: str) -> bool:
    """Whether a file's digest starts with `expected`: `md5:` or `sha256:` and leading hex digits."""
    return file_digest(path, expected.partition(":")[0]).startswith(expected.lower())


def files_digest(root: Path, files: Iterable[Path]) -> str:
    """Return `sha256:` + hex digest over the contents and the path, relative to `root`, of each file in path order.

    Independent of the location of `root`, but changes if a file is renamed, added, removed or modified.
    """
    named = sorted((path.relative_to(root).as_posix(), path) for path in files)
    from concurrent.futures import ThreadPoolExecutor  # imports logging, which `--help` does without

    total = hashlib.sha256()
    with ThreadPoolExecutor() as pool:
        contents = pool.map(lambda item: file_digest(item[1]), named)
        for (name, _), content in zip(named, contents, strict=True):
            total.update(f"{name}\0{content}\n".encode(errors="surrogateescape"))
    return f"sha256:{total.hexdigest()}"


def _shortened(name: str) -> str:
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST_NAME else hashlib.sha256(encoded).hexdigest()


def _temporary_name(name: str) -> str:
    """Make a unique name that says which process of which machine writes the file."""
    return f".{_shortened(name)}.{_machine()}-{os.getpid()}-{secrets.token_hex(4)}{_SUFFIX}"


@functools.cache
def _machine() -> str:
    """Return 8 hex digits for this boot of this machine, and this container on it, where process ids are unique."""
    parts = [platform.node()]
    with contextlib.suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), str(Path("/proc/self/ns/pid").readlink())]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:8]


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove the leftovers of killed processes; once per folder and process, since listing a large folder is slow."""
    if folder in _tidied:
        return
    _tidied.add(folder)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match is None:
                continue
            if match["machine"] == _machine():
                abandoned = not _is_running(int(match["process"]))
            else:
                abandoned = time.time() - entry.stat(follow_symlinks=False).st_mtime > _ABANDONED_AFTER
            if abandoned:
                _remove(Path(entry.path))


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _write_error(error: BaseException, temporary: Path) -> OSError | None:
    """Return the `OSError` behind a failed write, or None if the error has another cause.

    Native writers (torch, Arrow) wrap it in a RuntimeError, or raise an OSError without an errno.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OSError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return OSError(str(error)) if str(temporary) in str(error) else None
    named = [name for name in (cause.filename, cause.filename2) if isinstance(name, str | bytes | os.PathLike)]
    about = {Path(os.fsdecode(name)) for name in named}
    return cause if not about or about & {temporary, temporary.parent} else None


def _no_folder(path: Path, error: OSError) -> UserError:
    """Explain why a folder cannot be created: another file is in the way, or the operating system's reason."""
    for place in (path, *path.absolute().parents):
        if not os.path.lexists(place) or place.is_dir():
            continue
        if place.is_symlink() and not place.exists():
            return UserError(f"{place} is a link to {place.readlink()}, which leads nowhere: choose another path")
        return UserError(f"{place} is a file, but a folder is needed there: choose another path")
    return _cannot_write(path, error)


def _behind_links(path: Path) -> Path:
    """Resolve symbolic links to the final target, which need not exist."""
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if target.is_symlink():
        raise _cannot_write(path, OSError(errno.ELOOP, os.strerror(errno.ELOOP)))
    return target


def _cannot_write(path: Path, error: OSError) -> UserError:
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, IsADirectoryError):
        return UserError(f"cannot write {path}: it is a folder; choose another path")
    remedy = _REMEDIES.get(error.errno or 0, "check the path and the disk")
    return UserError(f"cannot write {path} ({reason}); {remedy}")
