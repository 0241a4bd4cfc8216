"""The images of the study: a folder of packs, or a synthetic set; shrunk copies for the runs, and their proposals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ccop_pretrain
from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.files import write_atomically
from ccop_hub.images import is_image_name, read_rgb

DONE = "prepared.txt"
"""Written last into the folder of shrunk images; contains their number and the shortest side."""

QUALITY = 92
"""JPEG quality of the shrunk copies."""


CAMVID: dict[str, Any] = {"ignore": [11]}
"""Arguments of evaluations on CamVid: label 11 is void."""


@dataclass(frozen=True)
class StudyData:
    """The images to train on, and the labelled data to measure with.

    Attributes:
        name: `packs` or `drawn`.
        training: folders of training images; none has an image of a val split.
        labelled: kind of labelled data (`boxes`, `classes`, `labels`) -> folder.
        options: kind -> arguments that its evaluations need for this data.
    """

    name: str
    training: tuple[Path, ...]
    labelled: dict[str, Path]
    options: dict[str, dict[str, Any]]

    @classmethod
    def packs(cls, root: Path) -> StudyData:
        """Use a folder with `scenes` (images), `coco482` (COCO layout), `camvid` and `tiny-imagenet`.

        Raises:
            UserError: a folder is missing.
        """
        training = (root / "scenes", root / "coco482" / "train2017", root / "camvid" / "train" / "images")
        labelled = {"boxes": root / "coco482", "classes": root / "tiny-imagenet", "labels": root / "camvid"}
        for folder in (*training, *labelled.values()):
            if not folder.is_dir():
                raise UserError(f"there is no folder {folder}: give --data a folder as described in docs/study.md")
        return cls("packs", training, labelled, {"labels": CAMVID})

    @classmethod
    def drawn(cls, out: Path, arguments: dict[str, Any]) -> StudyData:
        """Draw a synthetic set, or use the one that is there."""
        ccop_pretrain.draw_scenes(out=out, workers=1, **arguments)
        labelled = {"boxes": out, "classes": out / "crops", "labels": out}
        return cls("drawn", (out / "train2017",), labelled, {})


def shrink(folders: Sequence[Path], out: Path, shortest_side: int) -> int:
    """Write copies of all images with at most this shortest side, in pixels, to `out`; returns their number.

    Decoding a large image costs more than a step of a small network on it.
    """
    note = out / DONE
    files = [
        (place, path)
        for place, folder in enumerate(folders)
        for path in sorted(folder.rglob("*"))
        if is_image_name(path.name)
    ]
    wanted = f"{len(files)} images, shortest side {shortest_side}\n"
    if note.is_file() and note.read_text(encoding="utf-8") == wanted:
        return len(files)
    for place, path in files:
        copy = out / copy_key(place, path.relative_to(folders[place]))
        copy.parent.mkdir(parents=True, exist_ok=True)
        image = read_rgb(path)
        scale = min(1.0, shortest_side / min(image.size))
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image.resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0).save(copy, quality=QUALITY)
    write_atomically(note, wanted)
    return len(files)


def copy_key(place: int, relative: Path) -> str:
    """The path of the shrunk copy of an image, given the number of its folder and its path there."""
    return (Path(str(place)) / relative.with_suffix(".jpg")).as_posix()


def propose(images: Path, out: Path) -> None:
    """Search the images for proposals, once for all runs."""
    ccop_pretrain.propose(images=images, out=out, workers=1)
