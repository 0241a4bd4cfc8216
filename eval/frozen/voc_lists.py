"""Read VOC2007's image lists, which say which images show which class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ccop_hub.errors import UserError
from ccop_hub.regular_files import read_text


@dataclass(frozen=True)
class VocSplit:
    """One split of VOC2007 classification.

    Attributes:
        paths: image files.
        labels: class name -> (N,) int8: 1 present, -1 absent, 0 difficult (ignored).
    """

    paths: list[Path]
    labels: dict[str, np.ndarray]

    @classmethod
    def read(cls, root: Path, split: str) -> VocSplit:
        """Read `ImageSets/Main/CLASS_SPLIT.txt` of a `VOC2007` folder.

        Raises:
            UserError: the layout is not VOC's, or its lists contradict each other.
        """
        lists = sorted((root / "ImageSets" / "Main").glob(f"*_{split}.txt"))
        if not lists:
            raise UserError(f"{root} is not VOC2007: no ImageSets/Main/CLASS_{split}.txt; give the VOC2007 folder")
        labels, names = {}, None
        for file in lists:
            try:
                entries = [
                    line.split() for line in read_text(file, errors="surrogateescape").split("\n") if line.strip()
                ]
            except (OSError, UnicodeDecodeError) as error:
                raise UserError(f"cannot read {file} ({error}): restore the original lists") from None
            if any(len(entry) != 2 or entry[1] not in {"1", "-1", "0"} for entry in entries):
                raise UserError(f"{file} is not a VOC class list: every line must be an image id and 1, -1 or 0")
            listed = [entry[0] for entry in entries]
            if names is not None and listed != names:
                raise UserError(f"{file} lists other images than {lists[0].name}: restore the original lists")
            names = listed
            labels[file.name.removesuffix(f"_{split}.txt")] = np.array([int(e[1]) for e in entries], dtype=np.int8)
        return cls([root / "JPEGImages" / f"{name}.jpg" for name in names or []], labels)


def read_splits(data: Path) -> tuple[Path, VocSplit, VocSplit]:
    """Find the `VOC2007` folder at or in `data`, and read its trainval and test splits.

    Raises:
        UserError: see `VocSplit.read`; or the splits' classes differ, or an image is missing.
    """
    root = data / "VOC2007" if (data / "VOC2007").is_dir() else data
    trainval, test = VocSplit.read(root, "trainval"), VocSplit.read(root, "test")
    if list(trainval.labels) != list(test.labels):
        raise UserError(f"{root} lists different classes for trainval and test: restore the original lists")
    missing = [path for path in (*trainval.paths, *test.paths) if not path.is_file()]
    if missing:
        raise UserError(f"{len(missing)} listed images are missing, such as {missing[0]}: restore JPEGImages")
    return root, trainval, test
