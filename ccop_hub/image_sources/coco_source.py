"""Open COCO data sets as image sources."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..coco.file_names import file_in, find_file
from ..coco.findings import Findings, Kind
from ..coco.listing import number_ids
from ..coco.reading import read_images
from ..errors import UserError
from ..packed_strings import PackedStrings
from .stored_images import ImageSource, require_different


def open_coco_folder(folder: Path) -> ImageSource:
    """List only the training images of a COCO data set, to keep validation images out of pre-training."""
    found = {path.stem.removeprefix("instances_"): path for path in sorted(folder.glob("annotations/instances_*.json"))}
    training = [path for split, path in found.items() if split.startswith("train")]
    training = training or [path for split, path in found.items() if not split.startswith(("val", "test"))]
    if len(training) != 1:
        names = ", ".join(path.name for path in found.values())
        raise UserError(
            f"{folder} is a COCO data set with {names} in annotations: give the JSON or the folder of images to use"
        )
    return open_coco(training[0])


def open_coco(path: Path) -> ImageSource:
    """List the images of a COCO JSON, with their ids.

    Raises:
        UserError: the file is not a COCO JSON, lists an image twice, or its images cannot be found.
    """
    images: dict[int | str, str] = {}
    for image in read_images(path):
        name = images.setdefault(image.id, image.file_name)
        if name != image.file_name:
            raise UserError(
                f"{path} has two images with id {image.id}: {name} and {image.file_name}; give each image a unique id"
            )
    numbers = number_ids(images, Findings(), Kind.IMAGE_IDS)
    require_different(path, sorted(images.values()))
    root = _coco_root(path, list(images.values()))
    exists = file_in(root)
    # Keep the names of missing files, which are reported when their pixels are read.
    entries = sorted((find_file(name, exists) or name, numbers[key]) for key, name in images.items())
    names = [name for name, _ in entries]
    require_different(path, names)
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
