"""Peak memory of `ccop-pretrain proposals` over a listing of any length.

    python benchmarks/proposals_memory.py 1000000 [--again] [--out DIR]

The listing is synthetic: N different names for one small picture. The search is replaced by fifty boxes drawn at once,
for its own memory does not depend on the listing; everything else is the command's: listing, resuming, reading, shards.
Prints one line of JSON; memory in MB (2**20 bytes).
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ccop_pretrain.common.packed_strings import PackedStrings
from ccop_pretrain.images.source import ImageSource, StoredImage
from ccop_pretrain.proposals import run as proposals
from ccop_pretrain.proposals import search
from ccop_pretrain.settings import ProposalSettings
from PIL import Image

BOXES = 50


class Synthetic(ImageSource):
    """N names of one picture."""

    def __init__(self, images: int, picture: Path) -> None:
        names = (f"folder-{index // 1000:06d}/image-{index:09d}.png" for index in range(images))
        super().__init__(picture.parent, "synthetic", PackedStrings(names))
        self.picture = picture

    def __getitem__(self, index: int) -> StoredImage:
        return StoredImage(self.keys[index], self.picture)


def draw_boxes(image: Any, generator: np.random.Generator, *settings: Any) -> Any:
    """Fifty boxes of an image instead of a search: float32 (50, 4), xyxy in pixels."""
    return np.cumsum(generator.random((BOXES, 4)), axis=1).astype(np.float32) * 99


def peak_mb() -> float:
    """The most memory that this process has had so far."""
    status = Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss counts the memory of the process that started this one as well
        return round(int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1024, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if platform.system() == "Darwin" else 1 << 10), 1)


def measure(images: int, out: Path, again: bool) -> dict[str, Any]:
    """Make the proposals, and with `again` compare the listing with them once more and remake nothing."""
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
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("images", type=int, help="length of the listing")
    parser.add_argument("--again", action="store_true", help="run a second time on the finished result")
    parser.add_argument("--out", type=Path, help="folder to write to, kept; a temporary one by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(arguments.images, arguments.out or Path(folder), arguments.again)))


if __name__ == "__main__":
    main()
