"""Typed settings of the commands that make what a run reads: scenes and proposals.

They stand apart from the commands themselves, so that the console program shows its help without the packages that
drawing and searching need.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ccop_hub.images import MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """Which images of a data set are left out, and how many may be.

    Args:
        max_pixels: width x height beyond which an image is left out, undecoded; it may exceed Pillow's own limit. An
            image takes about 3 bytes a pixel in each process that reads it, and ten times that to be searched.
        max_unreadable: share of the images (0 to 1) that may be unreadable or left out; beyond it the command stops.
    """

    max_pixels: int = MAX_PIXELS
    max_unreadable: float = 0.01


@dataclass(frozen=True)
class ProposalSettings(ReadingSettings):
    """Selective-search proposals of a set of images.

    Args:
        images: folder of images (recursive) or of tar shards, list of paths (.txt), pattern of tar shards
            ('train-{000..099}.tar'), COCO JSON, or folder of a COCO data set.
        out: folder for the Parquet shards, the manifest, settings.yaml and skipped.csv.
        workers: number of processes; all cores if not given. The result does not depend on it.
        mode: `fast` (the paper's) or `quality` (more boxes before the NMS, several times slower).
        max_side: longest side, in pixels, of the copy that is searched; the image as it is if not given. Boxes are in
            pixels of the original either way. 300 takes a sixth of the time of 640 x 427 and finds fewer objects.
        keep: most boxes kept an image.
        seed: of the random scores that the non-maximum suppression ranks overlapping boxes by.
        overwrite: throw away the proposals that `out` holds and begin anew.
        shard: I/N: search the I-th of N parts (I from 1), on one of N machines that share `out`; the same command
            without it then makes the result of all parts.
        merge: folders that other machines have written with --shard where there is no shared one; their rows are taken
            over into `out`.
        from_coco: COCO JSON to take the boxes from, in place of a search.
        to_coco: COCO JSON to write the proposals to as well, one file in the format of the authors' script.
        check: make nothing; report coverage and boxes an image, and with --ground-truth recall and overlap.
        ground_truth: COCO instance JSON of the same images that --check compares with.
    """

    images: Path
    out: Path
    workers: int | None = None
    mode: Literal["fast", "quality"] = "fast"
    max_side: int | None = None
    keep: int = 50
    seed: int = 0
    overwrite: bool = False
    shard: str | None = None
    merge: list[Path] | None = None
    from_coco: Path | None = None
    to_coco: Path | None = None
    check: bool = False
    ground_truth: Path | None = None


@dataclass(frozen=True)
class SceneSettings:
    """A procedurally drawn data set in COCO's layout: nothing to download.

    Args:
        out: folder for the images, the annotations, the label images and the crops.
        images: number of images in all.
        val_share: share of the images that make up the val split (0 to 1, exclusive).
        size: longest side of an image, in pixels; the other side varies from image to image.
        clutter: 0 (a few large objects, mostly apart, over a faint background) to 1 (many of any size that hide each
            other, over a textured background); a detector learns from few images only where it is low.
        seed: of every random draw; an image depends on it, on its split and on its number alone.
        workers: number of processes; all cores if not given. The result does not depend on it.
        overwrite: replace a scene set that `out` holds.
    """

    out: Path
    images: int = 600
    val_share: float = 0.25
    size: int = 320
    clutter: float = 1.0
    seed: int = 0
    workers: int | None = None
    overwrite: bool = False
