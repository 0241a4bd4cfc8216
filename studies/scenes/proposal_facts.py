"""How many proposals of the training images lie on annotated objects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ccop_eval.region_probe.coco_boxes import BoxedImages
from ccop_pretrain.proposals.check import iou
from ccop_pretrain.views.listing import ImageListing

from ccop_hub.files import write_atomically
from ccop_hub.images import read_header

FILE = "proposals.json"
ON_OBJECT, ON_BACKGROUND = 0.5, 0.1
"""IoU with the nearest object from which a proposal counts as an object, and below which as background."""


def write_proposal_facts(
    images: Path, proposals: Path, annotated: Path, key: Callable[[Path], str], results: Path
) -> None:
    """Compare the proposals of annotated training images with their objects, and write `proposals.json`.

    Args:
        images: folder of the shrunk training images.
        proposals: folder of their proposals.
        annotated: data set in COCO's layout, some of whose training images are among them.
        key: path of an annotated image -> key of its copy.
        results: folder of the result files.
    """
    if (results / FILE).is_file():
        return
    listing = ImageListing.open(images, proposals)
    index = {key: number for number, key in enumerate(listing.paths)}
    objects = BoxedImages.read(annotated, "train")
    best_of_proposals, best_of_objects, counts = [], [], []
    for path, truth in zip(objects.paths, objects.boxes, strict=True):
        copy = index[key(path)]
        found = listing.boxes(copy)
        counts.append(len(found))
        width, height = listing.read(copy).size
        before = read_header(path).upright
        factors = np.array([width / before[0], height / before[1]] * 2, dtype=np.float32)
        overlaps = iou(found, truth * factors)
        best_of_proposals.append(overlaps.max(1) if len(truth) else np.zeros(len(found)))
        best_of_objects.append(overlaps.max(0) if len(found) else np.zeros(len(truth)))
    shares, covered = np.concatenate(best_of_proposals), np.concatenate(best_of_objects)
    facts: dict[str, Any] = {
        "annotated images": len(objects.paths),
        "proposals per image": float(np.mean(counts)),
        "on an object": float((shares >= ON_OBJECT).mean()),
        "on background": float((shares < ON_BACKGROUND).mean()),
        "objects found": float((covered >= ON_OBJECT).mean()),
    }
    results.mkdir(parents=True, exist_ok=True)
    write_atomically(results / FILE, json.dumps(facts, indent=1) + "\n")
