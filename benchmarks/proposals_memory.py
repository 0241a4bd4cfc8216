"""Measure the peak memory of `ccop-pretrain proposals` for a listing of any length.

    python benchmarks/proposals_memory.py 1000000 [--again] [--out DIR]

The listing is synthetic, with N names for one small image. Random boxes replace the search, whose memory does not
depend on the listing; everything else (listing, resuming, reading, shards) is the real command. Prints one line of
JSON, with memory in MB (2**20 bytes).
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ccop_pretrain.proposals import run as proposals
from ccop_pretrain.proposals import search
from ccop_pretrain.settings import ProposalSettings
from machine import peak_mb
from PIL import Image

from ccop_hub.image_sources.stored_images import ImageSource, StoredImage
from ccop_hub.packed_strings import PackedStrings

BOXES = 50


class Synthetic(ImageSource):
    """A listing with N names for one image."""

    def __init__(self, images: int, picture: Path) -> None:
        names = (f"folder-{index // 1000:06d}/image-{index:09d}.png" for index in range(images))
        super().__init__(picture.parent, "synthetic", PackedStrings(names))
        self.picture = picture

    def __getitem__(self, index: int) -> StoredImage:
        return StoredImage(self.keys[index], self.picture)


def draw_boxes(image: Any, generator: np.random.Generator, *settings: Any) -> Any:
    """Draw 50 random boxes instead of searching: float32 (50, 4), xyxy in pixels."""
    return np.cumsum(generator.random((BOXES, 4)), axis=1).astype(np.float32) * 99


def measure(images: int, out: Path, again: bool) -> dict[str, Any]:
    """Compute the proposals; with `again`, rerun on the finished result, which recomputes nothing."""
    search.propose = draw_boxes
    picture = out / "picture.png"
    out.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(picture)
    facts: dict[str, Any] = {"images": images}
    started = time.monotonic()
    source = Synthetic(images, picture)
    facts["peak_after_listing_mb"] = peak_mb()
    settings = ProposalSettings(picture.parent, out / "proposals", workers=1)
    manifest, _ = proposals.make_proposals(settings, source)
    facts |= {"boxes": manifest.boxes, "seconds": round(time.monotonic() - started, 1), "peak_mb": peak_mb()}
    if again:
        started = time.monotonic()
        proposals.make_proposals(settings, source)
        facts |= {"seconds_again": round(time.monotonic() - started, 1), "peak_again_mb": peak_mb()}
    return facts


def main() -> None:
    """Parse the command line and run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", type=int, help="length of the listing")
    parser.add_argument("--again", action="store_true", help="run a second time on the finished result")
    parser.add_argument("--out", type=Path, help="folder to write to, kept; a temporary one by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments.images, arguments.out or Path(folder), arguments.again)))


if __name__ == "__main__":
    main()
