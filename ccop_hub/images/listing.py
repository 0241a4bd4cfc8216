"""The images below a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .formats import IMAGE_SUFFIXES, hint_for, suffix_of

# Written by operating systems and archivers beside people's files. Names that start with a dot (.DS_Store,
# AppleDouble's ._x.jpg, .ipynb_checkpoints) are hidden anyway.
_SYSTEM_NAMES = frozenset(
    {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini"}
)
_NAMED_SUFFIXES = 5
# A folder with these settings and one of the other files was written by one of the programs: its pictures are results.
_OUTPUT_SETTINGS = "settings.yaml"
_OUTPUT_FILES = frozenset({"environment.json", "manifest.json", "metrics.csv", "result.json", "train.log"})


@dataclass(frozen=True)
class ImageFiles:
    """The contents of a folder.

    Attributes:
        images: paths of all images, relative to the folder, POSIX, sorted by code point.
        passed_over: number of other files by suffix (lower case, with the dot; "" for none), hidden ones not counted.
    """

    images: list[str]
    passed_over: Mapping[str, int]


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name (no path) is hidden or an operating system's own."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def list_images(root: Path, exclude: Collection[Path] = ()) -> list[str]:
    """Paths of all images below `root`, relative, POSIX, sorted by code point; see `scan_images`.

    Raises:
        UserError: `root` is no folder, cannot be read, or contains no image.
    """
    return require_images(root, exclude).images


def require_images(root: Path, exclude: Collection[Path] = ()) -> ImageFiles:
    """As `scan_images`, for a folder that must hold an image.

    Raises:
        UserError: `root` is no folder, cannot be read, or contains no image.
    """
    found = scan_images(root, exclude)
    if not found.images:
        other = describe_passed_over(found.passed_over)
        raise UserError(
            f"{root} contains no image" + (f", only {other}" if other else "") + "; looked for "
            f"{', '.join(sorted(IMAGE_SUFFIXES))} in it and below"
        )
    return found


def scan_images(root: Path, exclude: Collection[Path] = ()) -> ImageFiles:
    """List the images below a folder, recursively, and count the other files.

    The name decides what is an image (`IMAGE_SUFFIXES`): a link to a missing file or a device called `x.jpg` is listed
    and counts as unreadable later; it does not silently vanish. Linked folders are followed, each real folder once, so
    a loop of links ends. Hidden files and folders are left out (see `is_hidden`), and so are folders below `root` that
    the programs wrote their results to: a run's picture sheets are no training images.

    Args:
        root: the folder.
        exclude: folders below it to leave out, such as the output of the command that lists; `root` itself and folders
            that do not exist have no effect.

    Raises:
        UserError: `root` is no folder, or a folder cannot be read.
    """
    if not root.is_dir():
        what = "is a file, not a folder of images" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; give the folder with the images")
    images: list[str] = []
    passed_over: Counter[str] = Counter()
    seen = {place for folder in exclude if (place := _identity(folder)) is not None} - {_identity(root)}
    # Linked folders wait until every real one is read: which of two paths names a folder must not depend on luck.
    pending = [(os.fspath(root), "")]
    linked: list[tuple[str, str]] = []
    while pending or linked:
        folder, prefix = pending.pop() if pending else linked.pop(0)
        place = _identity(folder)
        if place is None or place in seen:
            continue
        seen.add(place)
        entries = _entries(folder)
        if prefix and _is_output({entry.name for entry in entries}):
            continue
        for entry in entries:
            if _is_folder(entry):
                (linked if entry.is_symlink() else pending).append((entry.path, f"{prefix}{entry.name}/"))
            elif (suffix := suffix_of(entry.name)) in IMAGE_SUFFIXES:
                images.append(prefix + entry.name)
            else:
                passed_over[suffix] += 1
    return ImageFiles(sorted(images), dict(sorted(passed_over.items())))


def list_folders(root: Path) -> list[str]:
    """Names of the folders right below `root`, sorted, hidden ones left out: the classes of a labelled image set.

    Raises:
        UserError: `root` cannot be read.
    """
    return sorted(entry.name for entry in _entries(os.fspath(root)) if _is_folder(entry))


def describe_passed_over(passed_over: Mapping[str, int]) -> str:
    """The other files in words (`1203 other files: 1200 .heic (...), 3 .txt`); empty if there are none."""
    if not passed_over:
        return ""
    counts = sorted(passed_over.items(), key=lambda item: (-item[1], item[0]))
    named = []
    for suffix, count in counts[:_NAMED_SUFFIXES]:
        hint = hint_for(suffix)
        named.append(f"{count} {suffix or 'without a suffix'}" + (f" ({hint})" if hint else ""))
    more = sum(count for _, count in counts[_NAMED_SUFFIXES:])
    total = sum(passed_over.values())
    return f"{total} other {'file' if total == 1 else 'files'}: {', '.join(named)}" + (f", {more} more" if more else "")


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder, sorted by name, without hidden files."""
    try:
        with os.scandir(folder) as scan:
            return sorted((entry for entry in scan if not is_hidden(entry.name)), key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot read the folder {folder} ({error.strerror}); fix its permissions") from None


def _is_output(names: set[str]) -> bool:
    return _OUTPUT_SETTINGS in names and not names.isdisjoint(_OUTPUT_FILES)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link that leads to itself, or into a folder that may not be entered


def _identity(folder: str | Path) -> tuple[int, int] | None:
    """Device and inode of a folder, whatever path leads to it; None if it is not there."""
    try:
        status = os.stat(folder)  # noqa: PTH116 - a Path for each of a million folders is slow
    except OSError:
        return None
    return status.st_dev, status.st_ino
