"""Compare the estimate of `ccop-pretrain plan` with what the planned work then takes.

    python benchmarks/planner.py --images FOLDER --labelled FOLDER --out RESULTS.json

Plans a short project on the images of FOLDER with the command, then really runs it with the commands of the project:
proposals, pre-training, linear probe and kNN on the folder `labelled` (`train/CLASS/*`, `val/CLASS/*`). Time is
wall-clock time from start to end of each command, memory is the largest sum of the peak of the first process and the
private memory of its children, and disk is the size of the output.
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

from machine import facts, tree_memory, update

BIN = Path(sys.executable).parent


def measured(command: list[str]) -> dict[str, float]:
    """Run a command and measure its time in seconds and its memory in bytes."""
    begun = time.perf_counter()
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    memory = 0
    while running.poll() is None:
        memory = max(memory, tree_memory(running.pid))
        time.sleep(0.5)
    if running.returncode:
        raise SystemExit(f"{' '.join(command)} failed: {running.stderr.read() if running.stderr else ''}")
    return {"seconds": time.perf_counter() - begun, "memory": memory}


def size(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def count(folder: Path) -> int:
    """Return the number of files in a folder."""
    return sum(path.is_file() for path in folder.rglob("*"))


def planned(given: argparse.Namespace, labelled: int) -> dict[str, Any]:
    """Run the planner."""
    command = [str(BIN / "ccop-pretrain"), "plan", "--json", "--images", str(count(given.images)), *shared(given)]
    command += ["--sample", str(given.images), "--eval-images", str(labelled), "--eval-passes", str(passes(given))]
    command += ["--eval-size", str(given.eval_size)]
    begun = time.perf_counter()
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found | {"planning took, s": time.perf_counter() - begun}


def passes(given: argparse.Namespace) -> float:
    """Return how often the evaluation reads the labelled images, on average.

    Each epoch of the linear probe trains on nine tenths of the training images and scores the rest, which are scored
    once more at the end, with the validation images; kNN reads all images once.
    """
    train, val = (count(given.labelled / split) for split in ("train", "val"))
    return (given.epochs * train + 0.1 * train + val) / (train + val) + 1


def shared(given: argparse.Namespace) -> list[str]:
    """Return the flags that the plan and the run share."""
    flags = ["--backbone", given.backbone, "--image-size", str(given.image_size), "--steps", str(given.steps)]
    return [*flags, "--batch-size", str(given.batch_size), "--workers", str(given.workers), "--accelerator", "cpu"]


def carried_out(given: argparse.Namespace, place: Path) -> dict[str, dict[str, float]]:
    """Carry out the plan, and measure each part."""
    pretrain, evaluate = str(BIN / "ccop-pretrain"), str(BIN / "ccop-eval")
    proposals, run = place / "proposals", place / "run"
    workers = ["--workers", str(given.workers)]
    search = measured([pretrain, "proposals", str(given.images), "--out", str(proposals), *workers])
    command = [pretrain, "run", "--images", str(given.images), "--out", str(run), "--proposals", str(proposals)]
    training = measured([*command, *shared(given)])
    weights = str(run / "exported")
    probe = ["--image-size", str(given.eval_size), "--accelerator", "cpu"]
    shared_flags = ["--weights", weights, "--data", str(given.labelled), *probe]
    linear = measured(
        [evaluate, "linear", *shared_flags, "--out", str(place / "linear"), "--epochs", str(given.epochs)]
    )
    cache = ["--cache", str(place / "features")]
    knn = measured([evaluate, "knn", *shared_flags, "--out", str(place / "knn"), *cache])
    return {
        "proposals": search | {"disk": size(proposals)},
        "pre-training": training | {"disk": size(run)},
        "evaluation": {
            "seconds": linear["seconds"] + knn["seconds"],
            "memory": max(linear["memory"], knn["memory"]),
            "disk": size(place / "features"),
        },
    }


def main() -> None:
    """Plan, carry out, compare and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images to pre-train on")
    parser.add_argument("--labelled", type=Path, required=True, help="folder with train/CLASS/* and val/CLASS/*")
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--eval-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=1, help="epochs of the linear probe")
    parser.add_argument("--out", type=Path, help="JSON file for the results, updated if it exists; printed by default")
    given = parser.parse_args()
    machine = facts("torch", "numba")
    plan = planned(given, count(given.labelled))
    with tempfile.TemporaryDirectory() as scratch:
        real = carried_out(given, Path(scratch))
    parts = {
        part: {
            name: {"planned": plan["costs"][part][name], "real": value, "ratio": plan["costs"][part][name] / value}
            for name, value in values.items()
        }
        for part, values in real.items()
    }
    flags = {name: str(value) for name, value in vars(given).items() if name not in ("out", "images", "labelled")}
    counts = {"images": count(given.images), "labelled images": count(given.labelled)}
    entry = {"settings": flags | counts, "machine": machine, "parts": parts, "planning, s": plan["planning took, s"]}
    update(given.out, {f"{given.backbone}, {given.image_size} px": entry})


if __name__ == "__main__":
    main()
