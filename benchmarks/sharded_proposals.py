"""Measure how the search scales over processes that share a folder, and how long the merge of their parts takes.

    python benchmarks/sharded_proposals.py --images FOLDER --out RESULTS.json
    python benchmarks/sharded_proposals.py --merge 1000000 --out RESULTS.json

The first command searches the images with one process, and with two at once (`--shard 1/2` and `--shard 2/2`, each with
`--workers 1`, as on two machines), by turns, and merges the two parts. Times include the start of the programs.

The second command measures the merge alone, for N images: the listing is synthetic, with N names for one small image,
and its two parts contain the same 50 random boxes for every image. Everything else is the real command, in a process of
its own. The floor is the time in which pyarrow reads and writes the same Parquet files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from ccop_pretrain.proposals.claim import claim
from ccop_pretrain.proposals.ledger import Ledger, PartWriter, Share
from ccop_pretrain.proposals.run import make_proposals
from ccop_pretrain.settings import ProposalSettings
from machine import facts, peak_mb, spread, update
from PIL import Image
from proposals_memory import BOXES, Synthetic

from ccop_hub.proposals.shards import ImageProposals, content_digest

SHARES = 2


def start(images: Path, out: Path, *flags: str) -> subprocess.Popen[bytes]:
    """Start the command with one worker and one thread."""
    command = [str(Path(sys.executable).with_name("ccop-pretrain")), "proposals", str(images), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen([*command, "--workers", "1", *flags], env=environment, **quiet)


def finish(*processes: subprocess.Popen[bytes]) -> None:
    """Wait for processes, all of which must succeed."""
    codes = [process.wait() for process in processes]
    if any(codes):
        raise SystemExit("a search failed: run the command by itself to see why")


def scaling(images: Path, rounds: int) -> dict[str, Any]:
    """Time one process, two processes at once, and the merge of their parts, by turns."""
    times: dict[str, list[float]] = {"one process": [], "two processes": [], "merge": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as scratch:
            alone, shared = Path(scratch) / "alone", Path(scratch) / "shared"
            begun = time.perf_counter()
            finish(start(images, alone))
            times["one process"].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            finish(*(start(images, shared, "--shard", f"{number}/{SHARES}") for number in range(1, SHARES + 1)))
            times["two processes"].append(time.perf_counter() - begun)
            begun = time.perf_counter()
            finish(start(images, shared))
            times["merge"].append(time.perf_counter() - begun)
            shards = sorted(path.name for path in alone.glob("*.parquet"))
            if any((alone / name).read_bytes() != (shared / name).read_bytes() for name in shards):
                raise SystemExit("the merged proposals differ from those of one process")
            count = json.loads((alone / "manifest.json").read_text())["images"]
    speeds = [one / two for one, two in zip(times["one process"], times["two processes"], strict=True)]
    seconds = {name: spread(values) for name, values in times.items()}
    return {"images": count, "seconds": seconds, "two processes over one": spread(speeds), "identical": True}


def write_parts(images: int, out: Path) -> None:
    """Write the parts of two machines, without searching."""
    picture = out / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(picture)
    data, boxes = picture.read_bytes(), np.cumsum(np.random.default_rng(1).random((BOXES, 4)), axis=1)
    row = {"width": 16, "height": 16, "boxes": boxes.astype(np.float32), "bytes": len(data)}
    row["content"] = content_digest(data)
    source = Synthetic(images, picture)
    settings = ProposalSettings(out, out / "proposals", workers=1)
    settings.out.mkdir()
    manifest = claim(settings, source)
    for number in range(1, SHARES + 1):
        ledger = Ledger(source, settings.out, manifest.settings_digest, settings.max_pixels, 1, Share(number, SHARES))
        writer = PartWriter(ledger)
        for index in ledger.shared():
            writer.add(index, ImageProposals(source.keys[index], **row))
        writer.flush()


def floor(out: Path) -> float:
    """Time reading and writing the same Parquet files by pyarrow, without comparing or sorting anything."""
    begun = time.perf_counter()
    for number, path in enumerate(sorted((out / "proposals").glob("parts/*/*.parquet"))):
        pq.write_table(pq.read_table(path, use_threads=False), out / f"copy-{number:06d}.parquet", compression="zstd")
    return time.perf_counter() - begun


def merge(images: int, out: Path) -> dict[str, Any]:
    """Merge the parts in this process, and report its time and peak memory."""
    begun = time.perf_counter()
    source = Synthetic(images, out / "picture.png")
    listed, listing_mb = time.perf_counter(), peak_mb()
    manifest, _ = make_proposals(ProposalSettings(out, out / "proposals", workers=1), source)
    assert (manifest.images, manifest.boxes) == (images, images * BOXES)
    return {
        "images": images,
        "listing, s": round(listed - begun, 2),
        "merge, s": round(time.perf_counter() - listed, 2),
        "merge, us per image": round((time.perf_counter() - listed) / images * 1e6, 1),
        "peak after listing, MB": listing_mb,
        "peak, MB": peak_mb(),
    }


def main() -> None:
    """Parse the command line and run a measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of images to search")
    parser.add_argument("--rounds", type=int, default=3, help="turns of one and of two processes")
    parser.add_argument("--merge", type=int, nargs="+", default=[], metavar="N", help="numbers of images to merge")
    parser.add_argument("--scratch", type=Path, help="folder for the parts; a temporary one by default")
    parser.add_argument("--out", type=Path, help="JSON file for the results, updated if it exists")
    parser.add_argument("--merge-in", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.merge_in:
        print(json.dumps(merge(given.merge[0], given.merge_in)))
        return
    machine = {"machine": facts("numba", "numpy", "pyarrow")}
    if given.images:
        update(given.out, {"scaling": scaling(given.images, given.rounds), **machine})
    rows = []
    for images in given.merge:
        place = Path(tempfile.mkdtemp(dir=given.scratch))
        write_parts(images, place)
        per_image = {"floor, us per image": round(floor(place) / images * 1e6, 1)}
        command = [sys.executable, __file__, "--merge", str(images), "--merge-in", str(place)]
        rows.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) | per_image)
        shutil.rmtree(place)
    if rows:
        update(given.out, {"merge": rows, **machine})


if __name__ == "__main__":
    main()
