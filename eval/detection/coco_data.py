"""COCO-format data sets with arbitrary classes, checked and normalised before Detectron2 reads them.

The layout is COCO's: `train2017/`, `val2017/` and `annotations/instances_{train,val}2017.json`. Boxes in the files are
xywh in absolute pixels; masks are polygons or RLE; category ids may be any integers.
"""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

from ccop_hub.coco.findings import Kind
from ccop_hub.coco.normalised import MaskFormat, NormalisedCoco, normalise, only_roots_differ
from ccop_hub.errors import UserError
from ccop_hub.regular_files import open_regular

_UNSEEN_IN_TRAINING = (Kind.BOX_WITHOUT_AREA, Kind.BOX_OUTSIDE, Kind.BOX_CLIPPED, Kind.BAD_POLYGON)
"""Fixes that make no difference to Detectron2: it clips boxes to the image, drops empty ones, and ignores polygons of
fewer than three points. A training file that needs only these keeps its original digest, as does COCO's train2017,
which has two boxes of height 0."""


@dataclasses.dataclass(frozen=True)
class CocoSplit:
    """One split of a data set.

    Attributes:
        name: its Detectron2 registration name, unique to its paths and contents.
        source: the user's instance JSON.
        annotations: the normalised copy that all other code reads.
        images: folder that file names are relative to.
        image_count: number of images in the JSON.
        instance_count: number of annotated objects, crowds excluded.
        classes: category id -> class name, sorted by id.
        masks: mask format; None if there are no masks.
        digest: hexadecimal SHA-256 of the JSON (of the copy if its content differs) and every image's name and size
            in bytes.
        note: what normalisation dropped, fixed or computed; empty if nothing.
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
    """A data set with a training and a validation split.

    Attributes:
        name: its name in result tables.
        train: training split.
        val: validation split, used for scoring.
        needs_masks: whether objects without a mask were dropped.
        notes: what normalisation changed, one line per file.
    """

    name: str
    train: CocoSplit
    val: CocoSplit
    needs_masks: bool = False
    notes: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of both splits, as `sha256:...`."""
        return f"sha256:{hashlib.sha256((self.train.digest + self.val.digest).encode()).hexdigest()}"

    @property
    def class_names(self) -> list[str]:
        """Class names, sorted by category id."""
        return list(self.train.classes.values())

    @property
    def masks(self) -> MaskFormat | None:
        """Mask format that works for both splits; None if either has only boxes."""
        if self.train.masks is None or self.val.masks is None:
            return None
        return "polygon" if self.train.masks == "polygon" else "bitmask"


def open_coco(root: Path, masks: bool = True) -> CocoData:
    """Open a data set in COCO's layout, checking JSON, references, classes and image files.

    Args:
        root: the data set's folder.
        masks: see `open_pair`.

    Raises:
        UserError: the layout is not COCO's, a JSON or image file is missing, or a JSON is not COCO instance format.
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
    """Check and normalise both splits of a data set.

    Args:
        name: the data set's name.
        train: annotation file and image folder of the training split.
        val: annotation file and image folder of the validation split.
        masks: train on and score masks if both splits have them; objects without a mask are then dropped.

    Raises:
        UserError: see `open_coco`; or the splits' classes differ.
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
    """Open a subset of a data set's training split; it keeps all classes."""
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
    with open_regular(content) as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update("\n".join(f"{name} {size}" for name, size in normalised.files).encode(errors="surrogateescape"))
    named = f"{normalised.copy.resolve()}\n{images.resolve()}\n{digest.hexdigest()}".encode(errors="surrogateescape")
    return CocoSplit(
        name=f"coco-format-{normalised.source.stem}-{hashlib.sha256(named).hexdigest()[:12]}",
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
    """Register a split with Detectron2, once per process, and return its registered name."""
    from detectron2.data import DatasetCatalog
    from detectron2.data.datasets import register_coco_instances

    if split.name not in DatasetCatalog.list():
        register_coco_instances(split.name, {}, str(split.annotations), str(split.images))
    return split.name
