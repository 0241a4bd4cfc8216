"""Reading images, and image sets sorted into class folders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from ccop_hub import images
from ccop_hub.errors import UserError
from ccop_hub.files import bytes_digest, file_digest, files_digest

from ..results.result import Metrics
from .compute import derived_seed

TEST_RATIO = 256 / 224
"""Shorter side of a test image before its centre crop, in crop sides (the usual ImageNet test transform)."""


def read_rgb(path: Path) -> Image.Image:
    """An image in mode RGB, turned upright by its EXIF orientation; see `ccop_hub.images.read_rgb`.

    Raises:
        UserError: not a readable image. It is not skipped, since a score over the others would not be comparable.
    """
    try:
        return images.read_rgb(path)
    except images.UnreadableImageError as error:
        raise UserError(f"unreadable image {path}: {error.reason}; replace or remove it") from None


def list_images(folder: Path) -> list[Path]:
    """Image files below a folder, recursively, sorted by relative path.

    Raises:
        UserError: no such folder, or no image in it.
    """
    return [folder / image for image in images.list_images(folder)]


def require_regular(files: Sequence[Path]) -> None:
    """Check that files are there, without reading them; a FIFO or device would never end.

    Raises:
        UserError: a file is missing or not a regular file, such as a link to content that was not fetched.
    """
    for path in files:
        try:
            images.open_regular(path).close()
        except images.UnreadableImageError as error:
            raise UserError(f"unreadable file {path}: {error.reason}; restore or remove it") from None


def data_digest(root: Path, files: Sequence[Path], contents: Sequence[Path] = ()) -> str:
    """`ccop_hub.files.files_digest` of a data set, and of the contents of files that are read instead of some.

    Raises:
        UserError: a file cannot be read.
    """
    try:
        digest = files_digest(root, files)
        return bytes_digest(" ".join([digest, *map(file_digest, contents)]).encode()) if contents else digest
    except OSError as error:
        raise UserError(f"unreadable file {error.filename}: {error.strerror}; restore or remove it") from None


@dataclass(frozen=True)
class ClassFolders:
    """One split of an image set whose folders are its classes.

    Attributes:
        root: the split's folder.
        classes: class names, sorted.
        paths: image files, sorted by class and name.
        labels: class index of each.
    """

    root: Path
    classes: list[str]
    paths: list[Path]
    labels: list[int]

    @classmethod
    def read(cls, root: Path) -> ClassFolders:
        """List `root/CLASS/**/image`.

        Raises:
            UserError: no such folder, fewer than two classes, or a class without an image.
        """
        if not root.is_dir():
            raise UserError(f"no folder {root}: give --data a folder with train/CLASS/ and val/CLASS/ images")
        classes = images.list_folders(root)
        if len(classes) < 2:
            raise UserError(
                f"{root} has {len(classes)} class folders: put the images of each class in a separate folder"
            )
        files = [list_images(root / name) for name in classes]
        labels = [index for index, paths in enumerate(files) for _ in paths]
        return cls(root, classes, [path for paths in files for path in paths], labels)


def read_splits(data: Path) -> tuple[ClassFolders, ClassFolders]:
    """The `train` and `val` splits of a folder.

    Raises:
        UserError: a split is missing, or their classes differ.
    """
    train, val = ClassFolders.read(data / "train"), ClassFolders.read(data / "val")
    if train.classes != val.classes:
        odd = sorted(set(train.classes) ^ set(val.classes))
        raise UserError(
            f"train and val of {data} have different classes ({', '.join(odd[:5])}): both need the same class folders"
        )
    return train, val


class SeededImages(Dataset[tuple[Tensor, int]]):
    """Images under a random transform whose draws depend only on (seed, epoch, image index).

    Items are ((3, H, W) uint8 RGB tensor, the image's index). They do not depend on which worker or process loads an
    image, nor on what was loaded before.
    """

    def __init__(
        self, paths: list[Path], transform: Callable[[Image.Image], Tensor], seed: int = 0, epoch: int = 0
    ) -> None:
        self.paths, self.transform, self.seed, self.epoch = paths, transform, seed, epoch

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derived_seed(self.seed, self.epoch, index))
            return self.transform(read_rgb(self.paths[index])), index


def train_transform(size: int) -> Callable[[Image.Image], Tensor]:
    """RandomResizedCrop (scale 0.08-1, bilinear) to `size` pixels and a flip; returns (3, H, W) uint8 RGB."""
    transform: Callable[[Image.Image], Tensor] = v2.Compose(
        [
            v2.RandomResizedCrop(size, interpolation=InterpolationMode.BILINEAR),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
        ]
    )
    return transform


def test_transform(size: int) -> Callable[[Image.Image], Tensor]:
    """Shorter side to `size` x 256 / 224 pixels (bilinear), centre crop of `size`; returns (3, H, W) uint8 RGB."""
    transform: Callable[[Image.Image], Tensor] = v2.Compose(
        [
            v2.Resize(round(size * TEST_RATIO), interpolation=InterpolationMode.BILINEAR),
            v2.CenterCrop(size),
            v2.PILToTensor(),
        ]
    )
    return transform


def class_means(hits: np.ndarray, split: ClassFolders) -> Metrics:
    """Share of each class's images that are hits, in percent; `hits` is (N,) bool, in the split's order."""
    labels = np.asarray(split.labels)
    return {name: float(100 * hits[labels == index].mean()) for index, name in enumerate(split.classes)}
