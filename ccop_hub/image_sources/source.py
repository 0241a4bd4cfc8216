"""List the images of a run, with random access to each, from any of these sources.

    a folder                     every image below it; the key is its relative path
    a folder of tar shards       every image in them; the key is `SHARD.tar/MEMBER`
    `shards/{000..099}.tar`      the same, for a pattern of shards (braces or `*`) or a single `.tar`
    a text file                  one path per line, relative to the file's folder or absolute; the key is the line
    a COCO JSON                  the images that it lists; the key is `file_name`
    a COCO data set's folder     the training split of its `annotations/`
    `hf://ORG/NAME[:SPLIT]`      a data set on the Hugging Face Hub; the key is `SPLIT/ROW`
    a data set's folder          the same, written by `datasets.save_to_disk`

Keys are POSIX paths, sorted by code point. An image's index is the position of its key, so a run never depends on the
order in which a disk, a list or a shard lists the images.
"""

from __future__ import annotations

import glob
import itertools
import os
import posixpath
import re
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from ..errors import UserError
from ..images import (
    is_hidden,
    require_images,
    scan_images,
)
from ..optional import needs
from ..packed_strings import PackedStrings
from ..regular_files import read_text
from .hf_datasets import is_dataset, open_dataset
from .stored_images import ImageSource, require_different
from .tar_index import TAR_SUFFIX, TarIndex

LIST_SUFFIXES = (".txt", ".lst", ".list")
_LONGEST_LIST = 4 << 30  # bytes: tens of millions of paths
_MOST_SHARDS = 1_000_000
_RANGE = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})")
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def open_source(images: Path, exclude: Collection[Path] = ()) -> ImageSource:
    """List the images of a source; see the module docstring for the supported kinds.

    Args:
        images: folder, list, pattern of tar shards, COCO JSON, or Hugging Face data set.
        exclude: subfolders of an image folder to skip, such as the command's output folder.

    Raises:
        UserError: the source does not exist, has no images, or is not a valid list, JSON or shard.
    """
    if is_dataset(images):
        return open_dataset(images)
    if images.is_dir():
        return _open_folder(images, exclude)
    if images.is_file():
        return _open_file(images)
    if any(sign in str(images) for sign in "{*?["):
        return _open_pattern(images)
    if os.path.lexists(images):
        raise UserError(f"{images} is neither a file nor a folder, or a broken link; give images, or fix the link")
    raise UserError(
        f"{images} does not exist; give a folder of images, a list of their paths ({', '.join(LIST_SUFFIXES)}), tar "
        "shards, a COCO JSON, or hf://ORG/NAME"
    )


def _open_folder(folder: Path, exclude: Collection[Path]) -> ImageSource:
    if any((folder / "annotations").glob("instances_*.json")):
        with needs("embed"):
            from .coco_source import open_coco_folder
        return open_coco_folder(folder)
    shards = _shards_in(folder)
    if not shards:
        found = require_images(folder, exclude)
        return ImageSource(folder, folder.resolve().name, PackedStrings(found.images), passed_over=found.passed_over)
    if images := scan_images(folder, exclude).images:
        raise UserError(
            f"{folder} contains images ({images[0]}) and tar files; give the folder that contains only the images, or "
            f"'{folder}/*.tar'"
        )
    return _open_tars(folder, shards, folder.resolve().name)


def _shards_in(folder: Path) -> list[str]:
    with suppress(OSError), os.scandir(folder) as entries:  # looking for images then reports an unreadable folder
        names = [entry for entry in entries if entry.name.lower().endswith(TAR_SUFFIX)]
        return sorted(entry.name for entry in names if not is_hidden(entry.name) and not entry.is_dir())
    return []


def _open_file(path: Path) -> ImageSource:
    suffix = path.suffix.lower()
    if suffix == ".json":
        with needs("embed"):
            from .coco_source import open_coco
        return open_coco(path)
    if suffix in LIST_SUFFIXES:
        return _open_list(path)
    if suffix == TAR_SUFFIX:
        return _open_tars(path.parent, [path.name], path.stem)
    if path.name.lower().endswith(_COMPRESSED):
        raise UserError(f"{path} is compressed and has no random access; decompress it to .tar")
    raise UserError(
        f"{path} is neither a folder of images nor a list of paths ({', '.join(LIST_SUFFIXES)}), a tar "
        "shard (.tar) or a COCO JSON (.json)"
    )


def _open_pattern(pattern: Path) -> ImageSource:
    with needs("embed"):
        import braceexpand
    try:
        ranges = (abs(int(last) - int(first)) for first, last in _RANGE.findall(str(pattern)))
        words = [] if max(ranges, default=0) > _MOST_SHARDS else braceexpand.braceexpand(str(pattern))
        words = list(itertools.islice(words, _MOST_SHARDS + 1))
    except ValueError:
        raise UserError(f"unbalanced braces in {pattern}; write 'shards/{{000..099}}.tar'") from None
    if not 0 < len(words) <= _MOST_SHARDS:
        raise UserError(f"{pattern} stands for more than {_MOST_SHARDS} shards; use a smaller range, or 'shards/*.tar'")
    paths = sorted({Path(found) for word in words for found in (glob.glob(word) if glob.has_magic(word) else [word])})  # noqa: PTH207
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        raise UserError(f"{missing[0] if missing else pattern} does not exist; check the pattern {pattern}")
    others = [path for path in paths if path.suffix.lower() != TAR_SUFFIX]
    if others:
        raise UserError(f"{others[0]} is not a .tar file; a pattern names (uncompressed) tar shards")
    root = Path(os.path.commonpath([path.parent for path in paths]))
    return _open_tars(root, [path.relative_to(root).as_posix() for path in paths], root.resolve().name)


def _open_tars(root: Path, shards: list[str], name: str) -> ImageSource:
    index = TarIndex.read(root, shards)
    if not len(index.keys):
        raise UserError(f"no image in the {len(shards)} tar files of {root}; give shards that hold image files")
    return ImageSource(root, name, index.keys, tars=index, passed_over=index.passed_over)


def _open_list(path: Path) -> ImageSource:
    lines = sorted(posixpath.normpath(line) for line in _lines(path) if line and not line.startswith("#"))
    if not lines:
        raise UserError(f"{path} lists no image; write one path per line")
    if lines[0].lower().endswith(TAR_SUFFIX):
        raise UserError(
            f"{path} lists tar shards ({lines[0]}), not images; give their folder, or a pattern: 'shards/*.tar'"
        )
    require_different(path, lines)
    # A million Path objects would take longer than the lookups.
    if not any(os.path.isfile(os.path.join(path.parent, line)) for line in lines):  # noqa: PTH113, PTH118
        raise UserError(
            f"none of the {len(lines)} images in {path} exists (first: {path.parent / lines[0]}); write one path per "
            "line and nothing else, relative to the list's folder or absolute"
        )
    return ImageSource(path.parent, path.stem, PackedStrings(lines))


def _lines(path: Path) -> list[str]:
    """Read the stripped lines of a text file, preserving the bytes of file names that are not UTF-8."""
    try:
        text = read_text(path, _LONGEST_LIST, "surrogateescape")
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); fix its permissions") from None
    if "\0" in text:
        raise UserError(f"{path} contains zero bytes, so it is not text; save it as UTF-8, one path per line")
    return [line.strip() for line in text.split("\n")]
