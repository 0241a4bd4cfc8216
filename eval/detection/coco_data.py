"""A COCO-format data set with any classes, checked and normalised before Detectron2 sees it.

The layout is COCO's: `train2017/`, `val2017/` and `annotations/instances_{train,val}2017.json`. Boxes in the files are
xywh in absolute pixels; masks are polygons or run-length encodings; category ids may be any integers.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from ccop_hub.coco.findings import Kind
from ccop_hub.coco.normalised import MaskFormat, NormalisedCoco, normalise, only_roots_differ
from ccop_hub.errors import UserError

_UNSEEN_IN_TRAINING = (Kind.BOX_WITHOUT_AREA, Kind.BOX_OUTSIDE, Kind.BOX_CLIPPED, Kind.BAD_POLYGON)
"""Fixes that change nothing for Detectron2, which clips boxes to their image, drops those without area, and ignores
polygons of fewer than three points. Training files that need no others keep the digest of the file itself; COCO's own
train2017, with two boxes of height 0, is one of them."""


@dataclasses.dataclass(frozen=True)
class CocoSplit:
    """One split of a data set.

    Attributes:
        name: the name it is registered under in Detectron2; unique to its paths and contents.
        source: the instance JSON as the user has it.
        annotations: its normalised copy, which everything else reads.
        images: folder that the file names are relative to.
        image_count: images listed.
        instance_count: annotated objects that are not crowds.
        classes: category id -> class name, in order of the id.
        masks: how the masks are stored; None if no object has one.
        digest: hexadecimal SHA-256 of the JSON (of the copy, if its content differs), then of every image's name and
            size in bytes.
        note: what normalising dropped, fixed and computed; empty if nothing.
    """

    name: str
    source: Path
    annotations: Path
    images: Path
    image_count: int
    instance_count: int
    classes: dict[int, str]
    masks: MaskFormat | None
    digest: str
    note: str = ""


@dataclasses.dataclass(frozen=True)
class CocoData:
    """A data set to train on and to score on.

    Attributes:
        name: what a result table calls it.
        train: split to train on.
        val: split to score on.
        needs_masks: objects without a mask were dropped.
        notes: what normalising did to the two files, a line each.
    """

    name: str
    train: CocoSplit
    val: CocoSplit
    needs_masks: bool = False
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """`sha256:` and the digest over both splits."""
        return f"sha256:{hashlib.sha256((self.train.digest + self.val.digest).encode()).hexdigest()}"

    @property
    def class_names(self) -> list[str]:
        """Class names in the order of their category ids."""
        return list(self.train.classes.values())

    @property
    def masks(self) -> MaskFormat | None:
        """Format that both splits' masks can be read in; None if either split has boxes only."""
        if self.train.masks is None or self.val.masks is None:
            return None
        return "polygon" if self.train.masks == "polygon" else "bitmask"


def open_coco(root: Path, masks: bool = True) -> CocoData:
    """Check a data set in COCO's layout: JSON, references, classes and image files.

    Args:
        root: the folder.
        masks: as for `open_pair`.

    Raises:
        UserError: the layout, a JSON or an image file is missing, or a JSON cannot be read as COCO's instance format.
    """
    if not root.is_dir():
        raise UserError(f"no data set at {root}: give a folder with train2017/, val2017/ and annotations/")
    places = [
        (root / "annotations" / f"instances_{split}2017.json", root / f"{split}2017") for split in ("train", "val")
    ]
    for file, images in places:
        if not file.is_file() or not images.is_dir():
            absent = images if file.is_file() else file
            raise UserError(
                f"{absent} is missing: the data set needs train2017/, val2017/ and annotations/ in COCO's layout"
            )
    return open_pair(root.resolve().name, places[0], places[1], masks)


def open_pair(name: str, train: tuple[Path, Path], val: tuple[Path, Path], masks: bool = True) -> CocoData:
    """Check and normalise the two splits of a data set.

    Args:
        name: of the data set.
        train: the annotations to train on, and the folder of their images.
        val: the same to score on.
        masks: whether masks are trained on and scored, if both splits have any; objects without one are dropped then.

    Raises:
        UserError: as `open_coco`, or the splits have different classes.
    """
    places = (train, val)
    found = [normalise(*place) for place in places]
    keep_roots = only_roots_differ(*found)
    needs_masks = masks and all(split.masked for split in found)
    if keep_roots or (needs_masks and any(split.maskless for split in found)):
        found = [normalise(*place, masks=needs_masks, roots=keep_roots) for place in places]
    splits = [
        _split(normalised, images, training)
        for normalised, (_, images), training in zip(found, places, (True, False), strict=True)
    ]
    if splits[0].classes != splits[1].classes:
        raise UserError(f"the categories of {train[0]} and {val[0]} differ: both need the same list")
    notes = tuple(split.note for split in splits if split.note)
    return CocoData(name, splits[0], splits[1], needs_masks, notes)


def open_part(annotations: Path, whole: CocoData) -> CocoSplit:
    """A part of a data set's training split, with all of its classes."""
    return _split(
        normalise(annotations, whole.train.images, masks=whole.needs_masks, roots=True),
        whole.train.images,
        training=True,
    )


def _split(normalised: NormalisedCoco, images: Path, training: bool) -> CocoSplit:
    if not normalised.objects:
        what = f" ({normalised.summary})" if normalised.summary else ""
        raise UserError(
            f"{normalised.source} contains no usable object: detection needs objects for training and for scoring{what}"
        )
    content = normalised.content(_UNSEEN_IN_TRAINING if training else ())
    with content.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update("\n".join(f"{name} {size}" for name, size in normalised.files).encode(errors="surrogateescape"))
    named = f"{normalised.copy.resolve()}\n{images.resolve()}\n{digest.hexdigest()}"
    return CocoSplit(
        name=f"coco-format-{normalised.source.stem}-{hashlib.sha256(named.encode()).hexdigest()[:12]}",
        source=normalised.source,
        annotations=normalised.copy,
        images=images,
        image_count=normalised.images,
        instance_count=normalised.objects,
        classes=dict(normalised.classes),
        masks=normalised.masks,
        digest=digest.hexdigest(),
        note=normalised.summary,
    )


def register(split: CocoSplit) -> str:
    """Register a split with Detectron2, once per process, and return its name there."""
    from detectron2.data import DatasetCatalog
    from detectron2.data.datasets import register_coco_instances

    if split.name not in DatasetCatalog.list():
        register_coco_instances(split.name, {}, str(split.annotations), str(split.images))
    return split.name
