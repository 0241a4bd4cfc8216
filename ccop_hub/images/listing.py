"""List the images in a folder tree."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import UserError
from .formats import IMAGE_SUFFIXES, hint_for, suffix_of

# Created by operating systems and archivers. Names that start with a dot (.DS_Store, AppleDouble's ._x.jpg,
# .ipynb_checkpoints) are hidden anyway.
_SYSTEM_NAMES = frozenset(
    {"__macosx", "@eadir", "$recycle.bin", "system volume information", "lost+found", "thumbs.db", "desktop.ini"}
)
_NAMED_SUFFIXES = 5
# A folder with this file and one of the others is the output of one of the programs, so skip its images.
_OUTPUT_SETTINGS = "settings.yaml"
_OUTPUT_FILES = frozenset({"environment.json", "manifest.json", "metrics.csv", "result.json", "train.log"})


@dataclass(frozen=True)
class ImageFiles:
    """The contents of a folder.

    Attributes:
        images: paths of all images, relative to the folder, POSIX, sorted by code point.
        passed_over: suffix (lower case, with the dot; "" for none) -> number of other, non-hidden files.
    """

    images: list[str]
    passed_over: Mapping[str, int]


def is_hidden(name: str) -> bool:
    """Whether a file or folder name (not a path) is hidden or reserved by an operating system."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def list_images(root: Path, exclude: Collection[Path] = ()) -> list[str]:
    """Return the relative POSIX paths of all images under `root`, sorted by code point; see `scan_images`.

    Raises:
        UserError: `root` is not a folder, is unreadable, or contains no images.
    """
    return require_images(root, exclude).images


def require_images(root: Path, exclude: Collection[Path] = ()) -> ImageFiles:
    """Like `scan_images`, but require at least one image.

    Raises:
        UserError: `root` is not a folder, is unreadable, or contains no images.
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
    """List the images in a folder tree and count the other files.

    Images are identified by suffix (`IMAGE_SUFFIXES`), so a broken link or a device called `x.jpg` is listed and later
    reported as unreadable rather than silently skipped. Symbolic links to folders are followed, visiting each real
    folder once, so link loops terminate. Hidden files and folders (see `is_hidden`) and the output folders of the
    programs are skipped: the contact sheets of a run are not training images.

    Args:
        root: the folder.
        exclude: subfolders to skip, such as the output folder of the current command; `root` itself and missing folders
            have no effect.

    Raises:
        UserError: `root` is not a folder, or a folder is unreadable.
    """
    if not root.is_dir():
        what = "is a file, not a folder of images" if root.exists() else "does not exist"
        raise UserError(f"{root} {what}; give the folder with the images")
    images: list[str] = []
    passed_over: Counter[str] = Counter()
    seen = {place for folder in exclude if (place := _identity(folder)) is not None} - {_identity(root)}
    # Visit linked folders after all real ones, so that the path under which a folder is listed is deterministic.
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
    """Return the sorted names of the non-hidden subfolders of `root`: the classes of a labelled data set.

    Raises:
        UserError: `root` is unreadable.
    """
    return sorted(entry.name for entry in _entries(os.fspath(root)) if _is_folder(entry))


def describe_passed_over(passed_over: Mapping[str, int]) -> str:
    """Describe the other files (`1203 other files: 1200 .heic (...), 3 .txt`); empty if there are none."""
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
    """Return the non-hidden entries of a folder, sorted by name."""
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
        return False  # a circular link, or a link into a folder without access permission


def _identity(folder: str | Path) -> tuple[int, int] | None:
    """Return the device and inode of a folder, or None if it does not exist."""
    try:
        status = os.stat(folder)  # noqa: PTH116 - pathlib is slow for a million folders
    except OSError:
        return None
    return status.st_dev, status.st_ino
