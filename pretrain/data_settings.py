"""Typed settings of the commands that make what a run reads: scenes and proposals.

They stand apart from the commands themselves, so that the console program shows its help without the packages that
drawing and searching need.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class ProposalSettings:
    """Selective-search proposals of a folder of images.

    Args:
        images: folder of images, read recursively.
        out: folder for the Parquet shards, the manifest, settings.yaml and skipped.csv.
        workers: number of processes; all cores if not given. The result does not depend on it.
        mode: `fast` (the paper's) or `quality` (more boxes before the NMS, several times slower).
        max_side: longest side, in pixels, of the copy that is searched; the image as it is if not given. Boxes are in
            pixels of the original either way. 300 takes a sixth of the time of 640 x 427 and finds fewer objects.
        keep: most boxes kept an image.
        seed: of the random scores that the non-maximum suppression ranks overlapping boxes by.
        overwrite: replace proposals of other settings or images that `out` holds.
    """

    images: Path
    out: Path
    workers: int | None = None
    mode: Literal["fast", "quality"] = "fast"
    max_side: int | None = None
    keep: int = 50
    seed: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class SceneSettings:
    """A procedurally drawn data set in COCO's layout: nothing to download.

    Args:
        out: folder for the images, the annotations, the label images and the crops.
        images: number of images in all.
        val_share: share of the images that make up the val split (0 to 1, exclusive).
        size: longest side of an image, in pixels; the other side varies from image to image.
        seed: of every random draw; an image depends on it, on its split and on its number alone.
        workers: number of processes; all cores if not given. The result does not depend on it.
        overwrite: replace a scene set that `out` holds.
    """

    out: Path
    images: int = 600
    val_share: float = 0.25
    size: int = 320
    seed: int = 0
    workers: int | None = None
    overwrite: bool = False
