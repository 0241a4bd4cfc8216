"""The faults, tried on real commands, with the outcome.

A command passes if it produces the right result or a one-line refusal with exit code 2 (143 or 130 after a signal),
without a traceback or unfinished files.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Callable, Collection
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from . import hostile
from .command import CPU_BUDGET, MEMORY_BUDGET, Outcome, run
from .interruptions import kills, signals, writers
from .trials import Bench, Trial, Trials, leftovers, trial_of
from .warm import Disk

INPUTS = {"ENOENT": "none", "ENOTDIR": "file/x", "ENAMETOOLONG": "n" * 300, "ELOOP": "loop"}


def paths(bench: Bench, random_numbers: random.Random, inputs: Collection[str] = tuple(INPUTS)) -> Trials:
    """Output paths that cannot be created and unreachable inputs, for every command that writes."""
    kind, root = "paths", bench.material.root / "paths"
    root.mkdir()
    (root / "file").write_text("kept")
    (root / "folder").mkdir()
    (root / "folder" / "kept").write_text("kept")
    (root / "loop").symlink_to(root / "loop")
    for suffix in {writer.suffix for writer in bench.writers if writer.suffix}:
        (root / f"folder{suffix}").mkdir()
    for suffix in {writer.suffix for writer in bench.writers}:
        os.mkfifo(root / f"pipe{suffix}")
    for writer in bench.writers:
        taken = root / ("folder" if writer.suffix else "file")
        outs = {
            "ENOTDIR": root / "file" / "out",
            "EISDIR" if writer.suffix else "EEXIST": taken,
            "ENAMETOOLONG": root / ("n" * 300),
            "ELOOP": root / "loop" / "out",
            "FIFO": root / "pipe",
        }
        for fault, place in outs.items():
            out = place.with_name(f"{place.name}{writer.suffix}")
            outcome = bench.warm.run(writer.command(out))
            lost = outcome.refusal()
            if not lost and str(root) not in outcome.last:
                lost = f"does not name the path: {outcome.last}"
            if not lost and ((root / "file").read_text(), (root / "folder" / "kept").read_text()) != ("kept", "kept"):
                lost = "changed a file that was there"
            yield trial_of(kind, fault, writer.name, outcome, lost or ", ".join(leftovers(root)))
    for fault in inputs:
        for name, command in _readers(root / INPUTS[fault], root / "never").items():
            outcome = bench.warm.run(command)
            lost = outcome.refusal() or ("left a folder behind" if (root / "never").exists() else "")
            yield trial_of(kind, f"{fault} of an input", name, outcome, lost)


def _readers(path: Path, out: Path) -> dict[str, list[object]]:
    """Commands that read an input."""
    evaluation = ["--weights", "random", "--backbone", "resnet18", "--data", path, "--out", out]
    return {
        "proposals": ["ccop-pretrain", "proposals", path, "--out", out],
        "run": ["ccop-pretrain", "run", "--images", path, "--objective", "mocov2", "--out", out],
        "inspect": ["ccop-pretrain", "inspect", "--images", path, "--proposals", path, "--out", out],
        "info": ["ccop-hub", "info", path],
        "convert": ["ccop-hub", "convert", path, "--to", "timm", "--out", out],
        "publish": ["ccop-hub", "publish", path, "--repo", "lab/net", "--dry-run", "--out", out],
        "compare": ["ccop-eval", "compare", path, path],
        "visualize": ["ccop-eval", "visualize", path, "--weights", "random", "--backbone", "resnet18", "--out", out],
        **{name: ["ccop-eval", name, *evaluation] for name in ("linear", "knn", "voc-svm", "regions", "segmentation")},
    }


def mounted(bench: Bench, random_numbers: random.Random) -> Trials:
    """A read-only folder and disks that are too small, in a separate mount namespace."""
    can = os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    place, report = bench.material.root / "mounted", bench.material.root / "left"
    place.mkdir()
    trials = [("read-only folder", "read-only tmpfs", "1m"), *(("full disk", f"{n} KiB", f"{n}k") for n in DISKS)]
    for writer in bench.writers:
        for kind, fault, size in trials:
            if not can:
                yield Trial(kind, fault, writer.name, skipped="needs root and mount namespaces (unshare -m)")
                continue
            read_only = kind == "read-only folder"
            outcome = bench.warm.run(
                writer.command(place / f"out{writer.suffix}"), disk=Disk(place, size, read_only, report)
            )
            lost = outcome.flaw() if outcome.code == 0 else outcome.refusal()
            if outcome.code == 0 and read_only:
                lost = "succeeded in a read-only folder"
            if not lost and outcome.code and str(place) not in outcome.last:
                lost = f"does not name the file: {outcome.last}"
            yield trial_of(kind, fault, writer.name, outcome, lost or report.read_text().strip())


DISKS = (4, 64, 512, 4096)
"""Sizes of full disks, in KiB."""


def hostiles(bench: Bench, random_numbers: random.Random) -> Trials:
    """Hostile files, with limits on CPU time and memory, which need processes of their own."""
    material = bench.material
    folder = material.root / "hostile"
    folder.mkdir()
    result = json.loads((material.result / "result.json").read_text())
    usual: dict[tuple[object, object], float] = {}
    # In a process of its own: a command's peak of memory includes that of the process that starts it.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        cases = pool.submit(hostile.cases, folder, material.images, material.proposals, result).result()
    for name, (command, path) in cases.items():
        program = (command[0], command[1])
        if program not in usual:
            absent = [folder / "absent" if word in (path, path.parent) else word for word in command]
            usual[program] = run(absent).cpu
        outcome = run(command, timeout=60.0)
        yield judged("hostile files", name, outcome, usual[program], folder)
        shutil.rmtree(folder / "out", ignore_errors=True)


def judged(kind: str, name: str, outcome: Outcome, usual: float, folder: Path) -> Trial:
    """Judge a hostile file's outcome: a refusal or a result, within the limits, without running code from the file.

    Args:
        kind: kind of fault.
        name: the file's name.
        outcome: outcome of the command that read it.
        usual: the command's CPU time for a missing file, in seconds.
        folder: where code in the file would have created `ran`.
    """
    lost = outcome.refusal() if outcome.code else outcome.flaw()
    if outcome.cpu > usual + CPU_BUDGET:
        lost = lost or f"{outcome.cpu - usual:.1f} s of CPU time"
    if outcome.memory > MEMORY_BUDGET:
        lost = lost or f"{outcome.memory >> 20} MiB"
    if (folder / "ran").exists():
        (folder / "ran").unlink()
        lost = "its code was run"
    return trial_of(kind, name, "", outcome, lost or ", ".join(leftovers(folder)))


KINDS: dict[str, Callable[[Bench, random.Random], Trials]] = {
    "signals": signals,
    "kills": kills,
    "hostile": hostiles,
    "mounted": mounted,
    "paths": paths,
    "writers": writers,
}
"""Name on the command line -> its trials; the longest first."""

BOTH = frozenset({"writers"})
"""Kinds that need both warm processes."""
