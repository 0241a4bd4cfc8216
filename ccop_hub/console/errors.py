"""Format errors as one line: what failed and what to do about it."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import one_line
from ..files import final_path
from ..validation import did_you_mean

if TYPE_CHECKING:
    from cyclopts import CycloptsError

_REASONS = {
    errno.EACCES: ("permission denied", "change its permissions, or choose another place"),
    errno.EPERM: ("not permitted", "change its permissions, or choose another place"),
    errno.EROFS: ("the disk is read-only", "choose a place on a writable disk"),
    errno.ENOENT: ("no such file or folder", "check the path"),
    errno.ENOTDIR: ("a part of the path is a file, not a folder", "choose another path"),
    errno.EISDIR: ("it is a folder, not a file", "give a file"),
    errno.ENXIO: (None, "give a regular file"),
    errno.EFBIG: (None, "give a smaller file"),
    errno.EEXIST: ("it exists already", "choose another path"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one"),
    errno.ELOOP: ("too many symbolic links", "give the path that they lead to"),
    errno.ENOSPC: ("no space left on the disk", "free some and rerun the command"),
    errno.EDQUOT: ("your disk quota is used up", "free some space and rerun the command"),
    errno.EMFILE: ("too many open files", "raise the limit (`ulimit -n`), or use fewer --workers"),
    errno.ENOMEM: ("out of memory", "use fewer --workers or a smaller batch"),
}


def describe_os_error(error: OSError) -> str:
    """Describe which path failed, why, and what to do. Never names a temporary file."""
    reason, remedy = _REASONS.get(error.errno or 0, (None, "check the path, the disk and the network"))
    reason = reason or one_line(error.strerror or error) or type(error).__name__
    named = [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes | os.PathLike)]
    paths = [Path(os.fsdecode(name)) for name in named]
    # A failed rename names two files; the user knows only the one that is not temporary.
    path = next((path for path in paths if final_path(path) == path), paths[0] if paths else None)
    where = "" if path is None else f"{one_line(final_path(path), 300)}: "
    return f"{where}{reason}; {remedy}"


def describe_parse_error(error: CycloptsError, flags: Sequence[str]) -> str:
    """Describe an invalid command line.

    Args:
        error: the parser's error.
        flags: all flags of the command.
    """
    from cyclopts import exceptions

    if isinstance(error, exceptions.UnknownOptionError):
        word = str(error.token.keyword or error.token.value).partition("=")[0]
        return f"there is no flag {word}{did_you_mean(word.replace('_', '-'), flags)}"
    if isinstance(error, exceptions.RepeatArgumentError):
        return f"{error.token.keyword} is given twice: give it once"
    if isinstance(error, exceptions.MissingArgumentError):
        name = error.keyword or (error.argument.name if error.argument else "a flag")
        return f"{name} needs a value"
    if isinstance(error, exceptions.UnusedCliTokensError):
        return f"{' '.join(error.unused_tokens or [])!r} belongs to no flag: remove it"
    if isinstance(error, exceptions.CoercionError) and error.token is not None:
        return f"{error.token.keyword} {error.token.value} is not allowed: give true or false"
    error.verbose = False
    return one_line(error)
