"""`ccop-pretrain proposals --check`: coverage of the images, and recall of ground-truth objects."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ccop_hub.coco.file_names import find_file
from ccop_hub.coco.json_stream import stream_entries
from ccop_hub.coco.normalised import normalise
from ccop_hub.cores import available_cores
from ccop_hub.errors import UserError
from ccop_hub.files import write_atomically
from ccop_hub.image_sources.stored_images import ImageSource
from ccop_hub.proposals.shards import ImageProposals, Manifest, read_notes, shard_path

from ..settings import ProposalSettings
from .ledger import Ledger

CHECK = "check.json"
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
RECALL_IOU = 0.5  # minimum IoU for an object to count as found
_LARGEST_SIDE = 1 << 15  # pixels; larger boxes are counted at this size

Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class CheckReport:
    """Coverage and quality of the proposals of a set of images.

    Attributes:
        images: the `images` setting.
        folder: folder of proposals.
        measures: value of each measure, by name.
        note: anomalies in the ground truth; empty if there were none.
    """

    images: Path
    folder: Path
    measures: dict[str, Any]
    note: str = ""

    @property
    def missing(self) -> int:
        """Number of images without up-to-date proposals, not counting those left out for a known reason."""
        return int(self.measures["missing"])


def check_proposals(source: ImageSource, settings: ProposalSettings) -> CheckReport:
    """Measure the images' proposals in `out`, complete or not, and write `check.json`."""
    manifest = Manifest.read(settings.out)
    workers = settings.workers or available_cores()
    ledger = Ledger(source, settings.out, manifest.settings_digest, settings.max_pixels, workers)
    skipped = _skipped_keys(settings.out, manifest)
    measures = coverage(ledger, skipped) | box_counts(ledger)
    note = ""
    if settings.ground_truth is not None:
        comparison = Comparison.with_ground_truth(ledger, settings.ground_truth)
        measures |= comparison.report()
        note = comparison.note
    write_atomically(settings.out / CHECK, json.dumps(measures, indent=2) + "\n")
    return CheckReport(settings.images, settings.out, measures, note)


def _skipped_keys(folder: Path, manifest: Manifest) -> set[str]:
    """Return the keys of the images left out of the result."""
    notes = [read_notes(shard_path(folder, number)) for number in range(manifest.shards)]
    return {image for note in notes if note is not None for image in note.skipped}


def coverage(ledger: Ledger, skipped: set[str]) -> dict[str, Any]:
    """Count the listed images whose proposals match their current contents."""
    images, made = len(ledger.source), int((ledger.file >= 0).sum())
    left_out = sum(1 for index in ledger.pending() if ledger.source.keys[index] in skipped)
    return {
        "images": images,
        "with proposals": made,
        "left out": left_out,
        "missing": images - made - left_out,
        "coverage": made / images,
    }


def box_counts(ledger: Ledger) -> dict[str, Any]:
    """Compute statistics of boxes per image and of box sizes (square root of the area, in pixels)."""
    counts = np.zeros(int((ledger.file >= 0).sum()), dtype=np.int32)
    sides = np.zeros(_LARGEST_SIDE + 1, dtype=np.int64)  # a histogram, since a million images have 50 million boxes
    for place, (_, row) in enumerate(_rows(ledger)):
        counts[place] = len(row.boxes)
        side = np.sqrt(np.prod(row.boxes[:, 2:] - row.boxes[:, :2], axis=1, dtype=np.float64))
        np.add.at(sides, np.minimum(side, _LARGEST_SIDE).astype(np.int64), 1)
    report: dict[str, Any] = {
        "boxes": int(counts.sum(dtype=np.int64)),
        "images without a box": int((counts == 0).sum()),
    }
    if len(counts):
        report["boxes an image, mean"] = float(counts.mean())
        for share, value in zip(QUANTILES, np.quantile(counts, QUANTILES).tolist(), strict=True):
            report[f"boxes an image, {_quantile_name(share)}"] = value
    if sides.sum():
        cumulative = np.cumsum(sides) / sides.sum()
        for share in QUANTILES[1:-1]:
            report[f"box size in pixels, {_quantile_name(share)}"] = int(np.searchsorted(cumulative, share))
    return report


def _quantile_name(share: float) -> str:
    return {0.0: "smallest", 0.5: "median", 1.0: "largest"}.get(share, f"{share:.0%} quantile")


def _rows(ledger: Ledger) -> Iterator[tuple[int, ImageProposals]]:
    """Yield (index, row) for every listed image that has a row."""
    made = np.nonzero(ledger.file >= 0)[0].tolist()
    return zip(made, ledger.rows(made), strict=True)


@dataclass(frozen=True)
class Comparison:
    """Ground-truth objects matched with their best proposals.

    Attributes:
        overlaps: (M,) float64, largest IoU of each object with any proposal; 0 if the image has no boxes.
        classes: (M,) int64, category of each object.
        images: number of images that have both proposals and ground truth.
        unknown: number of objects in images without proposals, not included in M.
        note: annotations that were dropped, fixed or computed; empty if there were none.
    """

    overlaps: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64]
    images: int
    unknown: int
    note: str = ""

    @classmethod
    def with_ground_truth(cls, ledger: Ledger, path: Path) -> Comparison:
        """Compare with the boxes of a COCO instance JSON, excluding crowds; images are matched by `file_name`.

        Boxes are clipped to the image; objects entirely outside it are dropped.

        Raises:
            UserError: the file is not a COCO JSON, or describes other images.
        """
        normalised = normalise(path, classes=False)
        keys = ledger.source.keys
        indices: dict[int, int] = {}
        objects: list[tuple[int, int, float, float, float, float]] = []
        unknown = 0
        for section, _, entry in stream_entries(normalised.copy, ("images", "annotations")):
            if section == "images":
                name = find_file(entry["file_name"], lambda key: keys.find(key) is not None)
                index = None if name is None else keys.find(name)
                if index is not None and ledger.file[index] >= 0:
                    indices[entry["id"]] = index
            elif not entry["iscrowd"]:
                x, y, width, height = entry["bbox"]
                if entry["image_id"] in indices:
                    objects.append((indices[entry["image_id"]], entry["category_id"], x, y, x + width, y + height))
                else:
                    unknown += 1
        if not indices:
            raise UserError(f"none of the images of {path} has proposals; give the ground truth of these images")
        table = np.array(objects, dtype=np.float64).reshape(-1, 6)
        table = table[np.argsort(table[:, 0], kind="stable")]
        places = table[:, 0].astype(np.int64)
        overlaps = np.zeros(len(table))
        for index, row in _rows(ledger):
            first, last = np.searchsorted(places, (index, index + 1))
            corners = table[first:last, 2:]
            np.clip(corners, 0, (row.width, row.height) * 2, out=corners)
            if last > first and len(row.boxes):
                overlaps[first:last] = iou(corners, row.boxes).max(axis=1)
        inside = (table[:, 4:] > table[:, 2:4]).all(axis=1)
        if not inside.any():
            raise UserError(f"{path} has no object in the images that have proposals")
        classes = table[inside, 1].astype(np.int64)
        return cls(overlaps[inside], classes, len(set(indices.values())), unknown, normalised.summary)

    def report(self) -> dict[str, Any]:
        """Compute recall, average best overlap (ABO) and its class mean (MABO; Uijlings et al. 2013, section 5)."""
        by_class = [float(self.overlaps[self.classes == number].mean()) for number in np.unique(self.classes)]
        return {
            "ground truth, images": self.images,
            "ground truth, objects": len(self.overlaps),
            "ground truth, objects in images without proposals (not counted)": self.unknown,
            f"recall@{RECALL_IOU:g}": float((self.overlaps >= RECALL_IOU).mean()),
            "ABO (mean over objects)": float(self.overlaps.mean()),
            "MABO (mean over classes)": float(np.mean(by_class)),
        }


def iou(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Compute pairwise IoU: (N, 4) and (M, 4) xyxy in pixels -> (N, M); 0 where both boxes are empty."""
    one, two = first.astype(np.float64)[:, None], second.astype(np.float64)[None]
    shared = np.clip(np.minimum(one[..., 2:], two[..., 2:]) - np.maximum(one[..., :2], two[..., :2]), 0, None)
    intersection = shared.prod(axis=-1)
    areas = [(boxes[..., 2:] - boxes[..., :2]).prod(axis=-1) for boxes in (one, two)]
    union = areas[0] + areas[1] - intersection
    ratio: npt.NDArray[np.float64] = np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)
    return ratio
