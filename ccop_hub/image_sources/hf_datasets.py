"""Images of Hugging Face data sets: on the Hub, or in a folder that `save_to_disk` wrote."""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..errors import UserError, one_line
from ..images import MAX_PIXELS, UnreadableImageError, decode_rgb
from ..optional import needs
from ..packed_strings import PackedStrings
from .stored_images import ImageSource, StoredImage

if TYPE_CHECKING:
    from datasets import Dataset

PREFIX = "hf:/"
"""Start of `hf://ORG/NAME[:SPLIT]` as a path, which has no double slashes."""

_SAVED, _SAVED_SPLITS = "state.json", "dataset_dict.json"
_DIGITS = 9


@dataclass(frozen=True)
class DatasetImage(StoredImage):
    """One row of a data set: its encoded image, or a file that the row names.

    Attributes:
        rows: the data set, with its images undecoded.
        row: index of the row.
        column: name of the image column.
    """

    rows: Any = None
    row: int = 0
    column: str = ""

    def state(self) -> tuple[int, int]:
        """Return the image's size in bytes and its data file's modification time in ns; (-1, 0) if it has no image."""
        try:
            modified = self.path.stat().st_mtime_ns if self.path.is_file() else 0
            return len(self.read_bytes()), modified
        except UnreadableImageError:
            return -1, 0

    def read_bytes(self, max_pixels: int = MAX_PIXELS) -> bytes:
        """Read the encoded image.

        Raises:
            UnreadableImageError: the row has no image.
        """
        found = self.rows[self.row][self.column] or {}
        if found.get("bytes"):
            data: bytes = found["bytes"]
            return data
        if found.get("path") and Path(found["path"]).is_file():
            return StoredImage(self.key, Path(found["path"])).read_bytes(max_pixels)
        raise UnreadableImageError(Path(self.key), "the row has no image")

    def read(self, max_pixels: int = MAX_PIXELS) -> Image.Image:
        """Decode the image as upright 8-bit RGB; see `decode_rgb`."""
        return decode_rgb(BytesIO(self.read_bytes(max_pixels)), Path(self.key), max_pixels)


class DatasetSource(ImageSource):
    """The rows of a data set; their keys are `SPLIT/000000000`, in the order of the rows."""

    def __init__(self, name: str, split: str, rows: Any, column: str) -> None:
        self._rows, self._column = rows, column
        files = rows.cache_files
        self._data = Path(files[0]["filename"]) if files else Path(name)
        keys = PackedStrings(f"{split}/{index:0{_DIGITS}d}" for index in range(len(rows)))
        super().__init__(self._data.parent, name, keys)

    def __getitem__(self, index: int) -> DatasetImage:
        """Return the image at `index`."""
        return DatasetImage(self.keys[index], self._data, 0, 0, self._rows, index, self._column)


def is_dataset(images: Path) -> bool:
    """Whether a source is `hf://ORG/NAME[:SPLIT]`, or `FOLDER[:SPLIT]` for a folder that `save_to_disk` wrote."""
    if str(images).startswith(PREFIX):
        return True
    folder, _ = _split_name(images)
    return any((folder / name).is_file() for name in (_SAVED, _SAVED_SPLITS))


def open_dataset(images: Path) -> ImageSource:
    """Open the images of a data set for which `is_dataset` holds.

    A data set of several splits gives its `train` split unless a split is named.

    Raises:
        UserError: the data set does not exist, has no such split or no column of images, or `datasets` is missing.
    """
    with needs("datasets"):
        import datasets
    place, split = _split_name(images)
    name = str(place).removeprefix(PREFIX).lstrip("/") if str(images).startswith(PREFIX) else str(place)
    datasets.disable_progress_bars()
    try:
        if str(images).startswith(PREFIX):
            found = datasets.load_dataset(name)
        else:
            found = datasets.load_from_disk(os.fspath(place))
    except Exception as error:  # the library raises what its file systems and its network client raise
        raise UserError(f"{images} cannot be opened ({one_line(error, 200)}); check its name") from None
    if isinstance(found, datasets.DatasetDict):
        chosen = split or ("train" if "train" in found else next(iter(found), ""))
        if chosen not in found:
            raise UserError(f"{images} has no split {chosen!r}: use one of {', '.join(found)}")
        rows = found[chosen]
    else:
        chosen, rows = split or str(found.split or "train"), found
    column = _image_column(images, rows)
    if not len(rows):
        raise UserError(f"{images} has no rows: give a data set with images")
    undecoded = rows.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    return DatasetSource(Path(name).name, chosen, undecoded, column)


def _image_column(images: Path, rows: Dataset) -> str:
    import datasets

    columns = [name for name, feature in rows.features.items() if isinstance(feature, datasets.Image)]
    if not columns:
        raise UserError(f"{images} has no column of images, only {', '.join(rows.features)}: give another data set")
    return "image" if "image" in columns else columns[0]


def _split_name(images: Path) -> tuple[Path, str]:
    """Separate `FOLDER:SPLIT`; the split is empty if none is named."""
    name, colon, split = images.name.rpartition(":")
    if not colon or images.exists():
        return images, ""
    return images.with_name(name), split
