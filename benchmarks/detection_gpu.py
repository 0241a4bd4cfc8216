"""Benchmark every detection protocol on this machine's GPUs with shortened runs, and write the raw results as JSON.

    python benchmarks/detection_gpu.py --data coco [--data voc ...] --out benchmarks/results/detection-H100.json

Each row reports iterations per second, data loading time per iteration, peak GPU memory, mixed precision or not, SyncBN
or BN, whether all losses are finite, and whether a run killed halfway resumes to its full length. AP is not reported,
since it is meaningless after so few iterations. Use `--devices 2` to measure actual SyncBN. `--accelerator cpu` runs a
tiny version that only tests the script.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from ccop_eval.common.environment import hardware, versions
from ccop_eval.detection.config import protocol_ids
from ccop_eval.results.comparison import engine_label
from ccop_eval.results.result import Result

_FIT = {"voc-c4-24k": "voc", "cityscapes-instance-fpn-24k": "cityscapes"}
"""Data set of each protocol that does not use COCO."""

_DATA_HELP = "coco, voc, cityscapes, KIND=FOLDER, or any=FOLDER for every protocol that has none of its own; repeat it"


def main(argv: list[str] | None = None) -> int:
    """Run every protocol whose data is given; return 1 if any of them fails."""
    arguments = _parse(argv)
    rows = []
    for protocol in arguments.protocols:
        data = arguments.data.get(_FIT.get(protocol, "coco"), arguments.data.get("any"))
        if data is None:
            print(f"{protocol}: no data given, left out")
            continue
        row = measure(protocol, data, arguments)
        print({name: value for name, value in row.items() if name != "losses"})
        rows.append(row)
    record = {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "hardware": hardware(arguments.devices, None if arguments.accelerator == "auto" else arguments.accelerator),
        "versions": versions("detectron2", "pb1-detectron2", "fvcore", "pycocotools"),
        "command": sys.argv[1:] if argv is None else argv,
        "rows": rows,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {arguments.out}")
    return int(any("error" in row for row in rows))


def measure(protocol: str, data: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure one protocol: run half of it, then rerun the same command to the end, as a user would."""
    folder = Path(tempfile.mkdtemp(prefix="detection-gpu-"))
    command = [
        *(sys.executable, "-m", "ccop_eval", "detection", "--weights=random", f"--backbone={arguments.backbone}"),
        *(f"--data={data}", f"--protocol={protocol}", f"--devices={arguments.devices}"),
        *(f"--accelerator={arguments.accelerator}", f"--iterations={arguments.iterations}"),
        *(f"--workers={arguments.workers}", f"--save-every={max(1, arguments.iterations // 2)}", f"--out={folder}"),
    ]
    if arguments.batch_size is not None:
        command.append(f"--batch-size={arguments.batch_size}")
    row: dict[str, Any] = {"protocol": protocol, "data": data}
    row |= {"backbone": arguments.backbone, "devices": arguments.devices}
    try:
        told = _run_and_kill(command, folder / "detectron2" / "last_checkpoint", arguments.limit)
        if told is None:
            done = subprocess.run(command, capture_output=True, text=True, timeout=arguments.limit, check=False)
            told = done.stderr if done.returncode != 0 else ""
        return {**row, "error": told.strip().splitlines()[-1:]} if told else {**row, **_figures(folder)}
    except subprocess.TimeoutExpired:
        return {**row, "error": [f"not done after {arguments.limit} s"]}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run_and_kill(command: list[str], checkpoint: Path, limit: float) -> str | None:
    """Start the run and kill it after its first checkpoint.

    Returns:
        None if the run was killed; if it exited by itself, its error output, or an empty string on success.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8") as errors:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors)
        try:
            ends = time.monotonic() + limit
            while process.poll() is None and not checkpoint.exists() and time.monotonic() < ends:
                time.sleep(0.2)
            if process.poll() is None:
                return None
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        return errors.read() or "it gave no reason" if process.returncode != 0 else ""


def _figures(folder: Path) -> dict[str, Any]:
    """Collect the figures of a finished run from Detectron2's JSON lines and our result."""
    result = Result.read(folder)
    lines = [json.loads(line) for line in (folder / "detectron2" / "metrics.json").read_text().splitlines()]
    steps = [line for line in lines if "total_loss" in line]
    timed = [line["time"] for line in steps if "time" in line]
    losses = {name: value for name, value in steps[-1].items() if "loss" in name}
    configuration = (folder / "detectron2" / "config.yaml").read_text()
    resumed = next((note for note in result.notes if note.startswith("resumed")), None)
    memory = re.findall(r"max_mem: (\d+)M", (folder / "detectron2" / "log.txt").read_text())
    return {
        "protocol id": result.protocol,
        "engine": engine_label(result.engine),
        "iterations a second": 1 / statistics.median(timed) if timed else None,
        "data seconds an iteration": statistics.median(line["data_time"] for line in steps),
        "peak GPU memory, MiB": max(map(int, memory)) if memory else None,
        "mixed precision": re.search(r"AMP:\n\s+ENABLED: true", configuration) is not None,
        "norm": "SyncBN" if "NORM: SyncBN" in configuration else "BN",
        "losses": losses,
        "losses finite": all(math.isfinite(value) for value in losses.values()),
        "resumed": resumed,
        "notes": result.notes,
    }


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", action="append", required=True, help=_DATA_HELP)
    parser.add_argument("--out", type=Path, required=True, help="JSON file for the raw results")
    parser.add_argument("--protocols", nargs="+", default=protocol_ids(), help="protocol ids (default: all)")
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--iterations", type=int, default=100)
    parser.add_argument("--batch-size", type=int, help="images a step over all GPUs; two a GPU if not given")
    parser.add_argument("--workers", type=int, default=8, help="processes that read images, for each GPU")
    parser.add_argument("--accelerator", choices=("auto", "cuda", "cpu"), default="cuda")
    parser.add_argument("--limit", type=float, default=1800, help="seconds that one run may take")
    arguments = parser.parse_args(argv)
    pairs = (entry.split("=", 1) if "=" in entry else (entry, entry) for entry in arguments.data)
    arguments.data = dict(pairs)
    return arguments


if __name__ == "__main__":
    sys.exit(main())
