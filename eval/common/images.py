"""Read images and class-per-folder image data sets."""

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
"""Shorter side of a test image before the centre crop, relative to the crop (the usual ImageNet transform)."""


def read_rgb(path: Path) -> Image.Image:
    """Read an image as RGB with its EXIF orientation applied; see `ccop_hub.images.read_rgb`.

    Raises:
        UserError: the image is unreadable. Skipping it would make the score incomparable.
    """
    try:
        return images.read_rgb(path)
    except images.UnreadableImageError as error:
        raise UserError(f"unreadable image {path}: {error.reason}; replace or remove it") from None


def list_images(folder: Path) -> list[Path]:
    """List image files in a folder, recursively, sorted by relative path.

    Raises:
        UserError: the folder does not exist or contains no images.
    """
    return [folder / image for image in images.list_images(folder)]


def require_regular(files: Sequence[Path]) -> None:
    """Check that all files exist and are regular, without reading them: reading a FIFO or device never ends.

    Raises:
        UserError: a file is missing or not a regular file, e.g. a symlink to content that was never downloaded.
    """
    for path in files:
        try:
            images.open_regular(path).close()
        except images.UnreadableImageError as error:
            raise UserError(f"unreadable file {path}: {error.reason}; restore or remove it") from None


def data_digest(root: Path, files: Sequence[Path], contents: Sequence[Path] = ()) -> str:
    """Digest a data set with `ccop_hub.files.files_digest`, with `contents` for files that replace some of `files`.

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
    """One split of a data set with one folder per class.

    Attributes:
        root: the split's folder.
        classes: class names, sorted.
        paths: image files, sorted by class and name.
        labels: class index of each image.
    """

    root: Path
    classes: list[str]
    paths: list[Path]
    labels: list[int]

    @classmethod
    def read(cls, root: Path) -> ClassFolders:
        """List `root/CLASS/**/image`.

        Raises:
            UserError: the folder does not exist, has fewer than two classes, or has a class without images.
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
    """Read the `train` and `val` splits of a folder.

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
    """Randomly transformed images; the randomness depends only on (seed, epoch, image index).

    Items are ((3, H, W) uint8 RGB tensor, image index). They do not depend on which worker or process loads an image,
    or on what it loaded before.
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
    """RandomResizedCrop (scale 0.08-1, bilinear) to `size` pixels and random flip; returns (3, H, W) uint8 RGB."""
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
    """Accuracy per class, in percent; `hits` is (N,) bool, in the split's order."""
    labels = np.asarray(split.labels)
    return {name: float(100 * hits[labels == index].mean()) for index, name in enumerate(split.classes)}
