"""List the images of a run, with random access to each, from any of these sources.

    a folder                     every image below it; the key is its relative path
    a folder of tar shards       every image in them; the key is `SHARD.tar/MEMBER`
    `shards/{000..099}.tar`      the same, for a pattern of shards (braces or `*`) or a single `.tar`
    a text file                  one path per line, relative to the file's folder or absolute; the key is the line
    a COCO JSON                  the images that it lists; the key is `file_name`
    a COCO data set's folder     the training split of its `annotations/`

Keys are POSIX paths, sorted by code point. An image's index is the position of its key, so a run never depends on the
order in which a disk, a list or a shard lists the images.
"""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import posixpath
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import braceexpand
import numpy as np
import numpy.typing as npt
from PIL import Image

from ..coco.file_names import file_in, find_file
from ..coco.findings import Findings, Kind
from ..coco.listing import number_ids
from ..coco.reading import read_images
from ..errors import UserError
from ..images import (
    MAX_PIXELS,
    UnreadableImageError,
    decode_rgb,
    open_regular,
    read_rgb,
    require_images,
    scan_images,
)
from ..packed_strings import PackedStrings
from ..regular_files import read_text
from .tar_index import TAR_SUFFIX, TarIndex

LIST_SUFFIXES = (".txt", ".lst", ".list")
_MOST_BYTES_A_PIXEL = 8  # four channels of 16 bits, uncompressed
_MOST_METADATA = 64 << 20  # bytes
_LONGEST_LIST = 4 << 30  # bytes: tens of millions of paths
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


@dataclass(frozen=True)
class StoredImage:
    """One encoded image, stored as a file or as part of one.

    Attributes:
        key: key of the image, unique within its listing.
        path: file that contains the image.
        offset: first byte within the file.
        length: number of bytes; None for the rest of the file.
    """

    key: str
    path: Path
    offset: int = 0
    length: int | None = None

    def state(self) -> tuple[int, int]:
        """Return the image's size in bytes and its file's modification time in ns; (-1, 0) if there is no file."""
        try:
            status = os.stat(self.path)  # noqa: PTH116 - a million times
        except OSError:
            return -1, 0
        return (status.st_size if self.length is None else self.length), status.st_mtime_ns

    def read_bytes(self, max_pixels: int = MAX_PIXELS) -> bytes:
        """Read the encoded image.

        Raises:
            UnreadableImageError: the file cannot be read, is truncated, or is too large for `max_pixels`.
        """
        with open_regular(self.path) as file:
            try:
                size = os.fstat(file.fileno()).st_size if self.length is None else self.length
                if size > max_pixels * _MOST_BYTES_A_PIXEL + _MOST_METADATA:
                    raise UnreadableImageError(self.path, f"{size:,} bytes, more than {max_pixels} pixels can need")
                file.seek(self.offset)
                data = file.read(size)
            except OSError as error:
                raise UnreadableImageError(self.path, error.strerror or str(error)) from None
        if self.length is not None and len(data) < self.length:
            raise UnreadableImageError(self.path, f"the shard ends inside {self.key}")
        return data

    def read(self, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """Decode the image as upright 8-bit RGB; see `decode_rgb`.

        Raises:
            UnreadableImageError: the image cannot be read, or has more than `max_pixels`.
        """
        if self.length is not None:
            return decode_rgb(BytesIO(self.read_bytes(max_pixels)), self.path / self.key, max_pixels)
        return read_rgb(self.path, max_pixels)


class ImageSource:
    """A listing of images with random access.

    Attributes:
        root: folder that the keys (or the tar shards) are relative to.
        name: name of the data set, for display.
        keys: sorted, unique keys of the images.
        ids: (N,) int64 COCO image ids if the listing is a COCO JSON, else None.
        passed_over: number of non-image files found, by suffix.
    """

    def __init__(
        self,
        root: Path,
        name: str,
        keys: PackedStrings,
        ids: npt.NDArray[np.int64] | None = None,
        tars: TarIndex | None = None,
        passed_over: Mapping[str, int] | None = None,
    ) -> None:
        self.root = root
        self.name = name
        self.keys = keys
        self.ids = ids
        self.passed_over = dict(passed_over or {})
        self._tars = tars

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the listed keys."""
        return listing_digest(self.keys)

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: int) -> StoredImage:
        """Return the image at `index`."""
        key = self.keys[index]
        if self._tars is None:
            return StoredImage(key, self.root / key)
        shard = self.root / self._tars.shards[self._tars.shard[index]]
        return StoredImage(key, shard, int(self._tars.offset[index]), int(self._tars.size[index]))

    def __iter__(self) -> Iterator[StoredImage]:
        return (self[index] for index in range(len(self)))


def listing_digest(keys: Iterable[str]) -> str:
    """Compute the SHA-256 (hex) of a listing of keys, each terminated by a newline."""
    digest = hashlib.sha256()
    for key in keys:
        digest.update(key.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def open_source(images: Path, exclude: Collection[Path] = ()) -> ImageSource:
    """List the images of a source; see the module docstring for the supported kinds.

    Args:
        images: folder, list, pattern of tar shards or COCO JSON.
        exclude: subfolders of an image folder to skip, such as the command's output folder.

    Raises:
        UserError: the source does not exist, has no images, or is not a valid list, JSON or shard.
    """
    if images.is_dir():
        return _open_folder(images, exclude)
    if images.is_file():
        return _open_file(images)
    if any(sign in str(images) for sign in "{*?["):
        return _open_pattern(images)
    raise UserError(
        f"{images} does not exist; give a folder of images, a list of their paths ({', '.join(LIST_SUFFIXES)}), tar "
        "shards, or a COCO JSON"
    )


def _open_folder(folder: Path, exclude: Collection[Path]) -> ImageSource:
    if any((folder / "annotations").glob("instances_*.json")):
        return _open_coco_folder(folder)
    shards = sorted(path.name for path in folder.glob(f"*{TAR_SUFFIX}") if not path.name.startswith("."))
    if not shards:
        found = require_images(folder, exclude)
        return ImageSource(folder, folder.resolve().name, PackedStrings(found.images), passed_over=found.passed_over)
    if images := scan_images(folder, exclude).images:
        raise UserError(
            f"{folder} contains images ({images[0]}) and tar files; give the folder that contains only the images, or "
            f"'{folder}/*.tar'"
        )
    return _open_tars(folder, shards, folder.resolve().name)


def _open_coco_folder(folder: Path) -> ImageSource:
    """List only the training images of a COCO data set, to keep validation images out of pre-training."""
    found = {path.stem.removeprefix("instances_"): path for path in sorted(folder.glob("annotations/instances_*.json"))}
    training = [path for split, path in found.items() if split.startswith("train")]
    training = training or [path for split, path in found.items() if not split.startswith(("val", "test"))]
    if len(training) != 1:
        names = ", ".join(path.name for path in found.values())
        raise UserError(
            f"{folder} is a COCO data set with {names} in annotations: give the JSON or the folder of images to use"
        )
    return _open_coco(training[0])


def _open_file(path: Path) -> ImageSource:
    suffix = path.suffix.lower()
    if suffix == ".json":
        return _open_coco(path)
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
    try:
        words = list(braceexpand.braceexpand(str(pattern)))
    except ValueError:
        raise UserError(f"unbalanced braces in {pattern}; write 'shards/{{000..099}}.tar'") from None
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
    _require_different(path, lines)
    if not any((path.parent / line).is_file() for line in lines):
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


def _open_coco(path: Path) -> ImageSource:
    images: dict[int | str, str] = {}
    for image in read_images(path):
        name = images.setdefault(image.id, image.file_name)
        if name != image.file_name:
            raise UserError(
                f"{path} has two images with id {image.id}: {name} and {image.file_name}; give each image a unique id"
            )
    numbers = number_ids(images, Findings(), Kind.IMAGE_IDS)
    _require_different(path, sorted(images.values()))
    root = _coco_root(path, list(images.values()))
    exists = file_in(root)
    # Keep the names of missing files, which are reported when their pixels are read.
    entries = sorted((find_file(name, exists) or name, numbers[key]) for key, name in images.items())
    names = [name for name, _ in entries]
    _require_different(path, names)
    ids = np.array([number for _, number in entries], dtype=np.int64)
    return ImageSource(root, root.resolve().name, PackedStrings(names), ids)


def _coco_root(path: Path, names: list[str]) -> Path:
    """Find the folder that a COCO JSON's file names are relative to, from COCO's layout or next to the JSON."""
    split = path.stem.rpartition("_")[2]
    above = path.parent.parent
    folders = [above / split, above / "images" / split, above / "images", above, path.parent]
    probes = [names[0], names[len(names) // 2], names[-1]]
    for folder in folders:
        if any((folder / name).is_file() for name in probes if not Path(name).is_absolute()):
            return folder
    for folder in folders:  # file names may be from another machine, or include folders
        if any(find_file(name, file_in(folder)) is not None for name in probes):
            return folder
    tried = ", ".join(str(folder) for folder in folders)
    raise UserError(f"the images of {path} (such as {names[0]}) are not in any of {tried}; put them into the first")


def _require_different(path: Path, names: list[str]) -> None:
    """Check that sorted names are unique."""
    twice = next((name for name, following in itertools.pairwise(names) if name == following), None)
    if twice is not None:
        raise UserError(f"{path} lists {twice} twice; list each image once")
