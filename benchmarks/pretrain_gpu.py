"""Benchmark pre-training in float32, bf16, and bf16 + channels_last + compile, and check exact resume.

    python benchmarks/pretrain_gpu.py --images IMAGES --proposals PROPOSALS --work SCRATCH --out RESULT.json

Writes time, memory and losses as JSON. Uses the largest batch size of `--batches` that fits in memory with float32.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
from pathlib import Path
from typing import Any

import torch
from ccop_pretrain.settings import RunSettings
from ccop_pretrain.training.checkpoints import newest_checkpoint
from ccop_pretrain.training.run import environment, run
from ccop_pretrain.training.run_folder import RunFolder

VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bf16": {"precision": "bf16"},
    "bf16 + channels_last + compile": {"precision": "bf16", "channels_last": True, "compile": True},
}


def measure(common: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Train one variant from scratch; figures are medians over all reports but the first."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    settings = RunSettings(**common, **changes, overwrite=True)
    run(settings)
    with RunFolder(settings.out).metrics.open() as file:
        rows = list(csv.DictReader(file))
    later = rows[1:] or rows
    return {
        "images_per_second": statistics.median(float(row["images_per_second"]) for row in later),
        "data_wait": statistics.median(float(row["data_wait"]) for row in later),
        "losses": {row["step"]: float(row["loss"]) for row in rows},
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    }


def resumes_exactly(common: dict[str, Any]) -> bool:
    """Check that a run resumed from its second-to-last checkpoint ends with bit-identical results."""
    settings = RunSettings(**common)
    run(settings)
    folder = RunFolder(settings.out)
    last = newest_checkpoint(folder.checkpoints)
    assert last is not None
    before = torch.load(last, map_location="cpu", weights_only=False)["state_dict"]
    last.unlink()
    shutil.rmtree(folder.exported)
    run(settings)
    after = torch.load(last, map_location="cpu", weights_only=False)["state_dict"]
    return before.keys() == after.keys() and all(torch.equal(value, after[name]) for name, value in before.items())


def main() -> None:
    """Measure, then write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("images", "proposals", "work", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batches", type=int, nargs="+", default=[512, 256, 128, 64, 32])
    parser.add_argument("--workers", type=int)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    given = parser.parse_args()
    common = {
        name: getattr(given, name) for name in ("images", "proposals", "backbone", "image_size", "steps", "workers")
    }
    common |= {"devices": 1, "pictures": 0, "log_every": max(1, given.steps // 20), "tensorboard": False}
    batch, variants = 0, {}
    for batch in given.batches:
        try:
            first = measure({**common, "batch_size": batch, "out": given.work / "float32"}, {})
            break
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
    else:
        raise SystemExit("no batch fits: give smaller --batches")
    common["batch_size"] = batch
    variants["float32"] = first
    for name in given.variants:
        if name != "float32":
            variants[name] = measure({**common, "out": given.work / name.replace(" + ", "-")}, VARIANTS[name])
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    resume = {**common, "out": given.work / "resume", "save_every": max(1, given.steps // 2), "overwrite": False}
    shutil.rmtree(given.work / "resume", ignore_errors=True)
    result = {
        "batch_size": batch,
        "image_size": given.image_size,
        "backbone": given.backbone,
        "steps": given.steps,
        "variants": variants,
        "resumes_exactly": resumes_exactly(resume),
        "machine": {key: value for key, value in environment().items() if key != "command"},
    }
    given.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
