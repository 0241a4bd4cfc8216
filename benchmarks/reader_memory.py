"""Measure the memory and start-up of the data loader for a listing of many images.

    python benchmarks/reader_memory.py --out RESULTS.json [--workers 2] [--batches 40]

The listing is a list file of 1,000, then a million names. They lead through 1,000 links to a folder, whose 1,000 files
are hard links to one small image. Reported are the time to open the listing and to the first batch, and the memory
of each worker process after the first batch and after the last: private memory grows where a worker writes to pages
that it shares with the main process (copy on write).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts
from PIL import Image

EXPECTATION = (
    "Private memory of a worker independent of the number of images, within a few megabytes: names are packed into two "
    "arrays, so that reading one writes to no shared page. The main process grows by the names and 16 bytes per image. "
    "The time to the first batch grows only by the permutation of an epoch, about 10 ms per million images."
)
COUNTS = (1_000, 1_000_000)
BATCH = 32
FILES = 1_000


def measure(folder: Path, count: int, workers: int, batches: int) -> dict[str, float]:
    """Read batches of a listing with `count` names and return seconds and megabytes."""
    from ccop_pretrain.settings import ReadingSettings, ViewSettings
    from ccop_pretrain.views.dataset import RunSampler, ViewDataset, collate
    from ccop_pretrain.views.listing import ImageListing
    from torch.utils.data import DataLoader

    names = folder / f"{count}.txt"
    with names.open("w") as file:
        file.writelines(f"folder{number // FILES:03}/{number % FILES:03}.jpg\n" for number in range(count))
    before = memory("self")
    begun = time.perf_counter()
    listing = ImageListing.open(names, None, ReadingSettings(max_unreadable=1))
    opened = time.perf_counter()
    dataset = ViewDataset(listing, ViewSettings(image_size=64), 0)
    sampler = RunSampler(count, BATCH, batches, 0)
    loader = DataLoader(dataset, BATCH, sampler=sampler, num_workers=workers, collate_fn=collate)
    batch = iter(loader)
    started = time.perf_counter()
    next(batch)
    first = time.perf_counter()
    processes = [str(worker.pid) for worker in batch._workers]  # type: ignore[attr-defined]
    early = [memory(process) for process in processes]
    for _ in range(batches - 2):
        next(batch)
    late = [memory(process) for process in processes]
    return {
        "seconds to open": opened - begun,
        "seconds to the first batch": first - started,
        "growth of the main process (MB)": memory("self")["Rss"] - before["Rss"],
        "private memory per worker, first batch (MB)": float(np.mean([one["Private_Dirty"] for one in early])),
        "private memory per worker, last batch (MB)": float(np.mean([one["Private_Dirty"] for one in late])),
        "resident memory per worker, last batch (MB)": float(np.mean([one["Rss"] for one in late])),
    }


def memory(process: str) -> dict[str, float]:
    """Return the memory of a process in megabytes, from Linux's `smaps_rollup`."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()[1:]
    return {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines if line.endswith("kB")}


def main() -> None:
    """Measure each count in a new process and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batches", type=int, default=40)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.count:
        print(json.dumps(measure(given.folder, given.count, given.workers, given.batches)))
        return
    if given.out is None:
        parser.error("--out is missing")
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        images = Path(temporary) / "images"
        images.mkdir()
        pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(Path(temporary) / "one.jpg")
        for number in range(FILES):
            (images / f"{number:03}.jpg").hardlink_to(Path(temporary) / "one.jpg")
        for number in range(max(COUNTS) // FILES):
            (Path(temporary) / f"folder{number:03}").symlink_to(images)
        for count in COUNTS:
            command = [sys.executable, "-W", "ignore", __file__, "--folder", temporary, "--count", str(count)]
            command += ["--workers", str(given.workers), "--batches", str(given.batches)]
            found[str(count)] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    content = {"expectation": EXPECTATION, "machine": facts("torch"), "images": found}
    given.out.write_text(json.dumps(content, indent=2) + "\n")
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
