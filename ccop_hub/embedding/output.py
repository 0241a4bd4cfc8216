"""Write features and the images or boxes that they belong to, as .npy, .npz or Parquet."""

from __future__ import annotations

import csv
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from numpy.lib.format import write_array, write_array_header_1_0

from ..errors import UserError
from ..files import check_replaceable, make_folder, replacing, scratch_folder, was_interrupted, write_atomically
from ..locks import discard_abandoned_lock
from ..optional import needs

SUFFIXES = (".npy", ".npz", ".parquet")
METADATA_KEY = "ccop"
"""Key of the facts, as JSON, in the Parquet metadata and in the .npz archive."""

_ROWS_AT_ONCE = 4096


@dataclass
class RowTable:
    r"""What each row of features belongs to.

    Attributes:
        images: key of the image; bytes that are not UTF-8 are shown as escapes such as `\xff`.
        ids: COCO id of the image; None if the images have none.
        boxes: (x1, y1, x2, y2) in pixels of the original image; None if rows are images.
    """

    images: list[str] = field(default_factory=list)
    ids: list[int] | None = None
    boxes: list[npt.NDArray[np.float32]] | None = None

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return the columns by name, in order."""
        columns: dict[str, npt.NDArray[Any]] = {"image": np.array(self.images, dtype=np.str_)}
        if self.ids is not None:
            columns["image_id"] = np.array(self.ids, dtype=np.int64)
        if self.boxes is not None:
            boxes = np.concatenate([np.zeros((0, 4), np.float32), *self.boxes])
            columns |= {name: boxes[:, place].copy() for place, name in enumerate(("x1", "y1", "x2", "y2"))}
        return columns


class FeatureFile:
    """Collects rows of features on disk, so that memory does not grow with their number, and writes the output.

    Args:
        scratch: empty folder for the rows.
    """

    def __init__(self, scratch: Path) -> None:
        self.rows = self.dimension = 0
        self._path = scratch / "rows"
        self._file = self._path.open("wb")

    def append(self, features: npt.NDArray[np.float32]) -> None:
        """Append (n, D) float32 rows."""
        self._file.write(np.ascontiguousarray(features, dtype="<f4").data)
        self.rows, self.dimension = self.rows + len(features), features.shape[1]

    def close(self) -> None:
        """Stop collecting."""
        self._file.close()

    def blocks(self) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the rows in order, some thousand at a time."""
        features = np.memmap(self._path, dtype="<f4", mode="r", shape=(self.rows, self.dimension))
        for start in range(0, self.rows, _ROWS_AT_ONCE):
            yield np.asarray(features[start : start + _ROWS_AT_ONCE])


def check_output(out: Path, overwrite: bool) -> None:
    """Check that the output can be written, before any features are computed.

    Raises:
        UserError: the suffix is unknown, a file exists, or the format needs a package that is not installed.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"--out {out}: the name decides the format; end it in {', '.join(SUFFIXES)}")
    if out.suffix.lower() == ".parquet":
        with needs("embed"):
            import pyarrow.parquet  # noqa: F401
    for path in written_files(out):
        check_replaceable(path)
    existing = [path for path in written_files(out) if path.exists()]
    # The file of features is written last: without it, the others may be what a killed command left.
    if existing and not overwrite and (out in existing or not was_interrupted(out)):
        discard_abandoned_lock(out)
        raise UserError(f"{existing[0]} exists: pass --overwrite to replace it, or another --out")
    if out.is_dir():
        raise UserError(f"--out {out} is a folder: give the name of a file")
    make_folder(out.parent)


def written_files(out: Path) -> list[Path]:
    """Return the files that an output consists of; .npy has no place for names, so they are written next to it."""
    if out.suffix.lower() != ".npy":
        return [out]
    return [out, out.with_suffix(".rows.csv"), out.with_suffix(".json")]


@contextmanager
def collecting(out: Path) -> Iterator[FeatureFile]:
    """Yield a `FeatureFile` in a temporary folder next to the output."""
    with scratch_folder(out) as scratch:
        features = FeatureFile(scratch)
        try:
            yield features
        finally:
            features.close()


def write_output(out: Path, features: FeatureFile, rows: RowTable, facts: Mapping[str, Any]) -> None:
    """Write the collected rows atomically, in the format that the suffix names."""
    features.close()
    writers: dict[str, Callable[..., None]] = {".npy": _write_npy, ".npz": _write_npz, ".parquet": _write_parquet}
    writers[out.suffix.lower()](out, features, rows.columns(), json.dumps(facts, indent=2, sort_keys=True))


def _write_npy(out: Path, features: FeatureFile, columns: Mapping[str, npt.NDArray[Any]], facts: str) -> None:
    _, names, about = written_files(out)
    new = [path for path in (names, about) if not path.exists()]
    try:
        with replacing(out) as whole:
            with whole.open("wb") as binary:
                _write_features(binary, features)
            with replacing(names) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(columns)
                writer.writerows(zip(*(column.tolist() for column in columns.values()), strict=True))
            write_atomically(about, facts + "\n")
    except BaseException:
        for path in new:
            path.unlink(missing_ok=True)
        raise


def _write_npz(out: Path, features: FeatureFile, columns: Mapping[str, npt.NDArray[Any]], facts: str) -> None:
    arrays = {**columns, METADATA_KEY: np.array(facts)}
    with replacing(out) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        with archive.open("features.npy", "w", force_zip64=True) as member:
            _write_features(member, features)  # type: ignore[arg-type]
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                write_array(member, array, allow_pickle=False)


def _write_features(file: BinaryIO, features: FeatureFile) -> None:
    shape = (features.rows, features.dimension)
    write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
    for block in features.blocks():
        file.write(np.ascontiguousarray(block).tobytes())


def _write_parquet(out: Path, features: FeatureFile, columns: Mapping[str, npt.NDArray[Any]], facts: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {name: pa.string() if column.dtype.kind == "U" else None for name, column in columns.items()}
    fields = [pa.field(name, kinds[name] or pa.from_numpy_dtype(column.dtype)) for name, column in columns.items()]
    fields.append(pa.field("features", pa.list_(pa.float32(), features.dimension)))
    schema = pa.schema(fields, metadata={METADATA_KEY: facts})
    with (
        replacing(out) as temporary,
        temporary.open("wb") as file,  # Arrow opens only paths that are valid UTF-8
        pq.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        start = 0
        for block in features.blocks():
            part = {name: column[start : start + len(block)] for name, column in columns.items()}
            arrays = [pa.array(values.tolist(), schema.field(name).type) for name, values in part.items()]
            arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), features.dimension))
            writer.write_table(pa.table(arrays, schema=schema))
            start += len(block)
