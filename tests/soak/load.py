"""Long-running commands with two worker processes, whose memory, open files and threads are sampled."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..faults.command import BIN, ENVIRONMENT, send, survivors
from ..faults.interruptions import STOP_WITHIN
from ..faults.material import RUN_SETTINGS, Material

PERIOD = 1.0
"""Seconds between samples."""

WARM_UP = 0.3
"""Share of the time in which memory may still grow: caches fill and allocators settle."""

NICE = 5
"""Lower priority of a load than that of the commands that are killed meanwhile."""

GROWTH_BUDGET = 1.0
"""Percent by which resident memory may grow after the warm-up."""


@dataclass(frozen=True)
class Sample:
    """The processes of a command at one moment.

    Attributes:
        at: seconds since the command started.
        main: resident memory of the main process, in bytes.
        workers: resident memory of each other process, in bytes.
        files: open files of the main process.
        threads: threads of the main process.
    """

    at: float
    main: int
    workers: tuple[int, ...]
    files: int
    threads: int


@dataclass(frozen=True)
class Load:
    """What the samples after the warm-up show.

    Attributes:
        command: name of the command.
        seconds: time sampled after the warm-up.
        samples: number of samples.
        memory: median resident memory of all processes, in MiB.
        growth: growth of the resident memory of the main process and its workers over `seconds`, in percent of it, by
            the median of the slopes between all pairs of samples (Theil-Sen).
        files: least and greatest number of open files in the first and in the second half.
        threads: likewise for threads.
        lost: what failed; empty if the load passed.
    """

    command: str
    seconds: float
    samples: int
    memory: float
    growth: float
    files: tuple[int, int, int, int]
    threads: tuple[int, int, int, int]
    lost: str = ""

    def document(self) -> dict[str, object]:
        """The load as JSON."""
        return asdict(self)


def loads(material: Material) -> dict[str, list[object]]:
    """Name -> command line of a command that runs until it is stopped."""
    out = material.root / "load"
    many = out / "images"
    many.mkdir(parents=True)
    images = []
    for image in sorted(material.images.iterdir()):  # at a usual size: the search must last until it is stopped
        images.append(out / image.name)
        Image.open(image).resize((480, 480)).save(images[-1])
    for number in range(40_000):
        os.link(images[number % len(images)], many / f"{number:06d}{images[number % len(images)].suffix}")
    changed = {**RUN_SETTINGS, "workers": 2, "steps": 10**6, "save_every": 100, "log_every": 10}
    flags = [f"--{name}={value}" for name, value in changed.items()]
    return {
        "run": [
            *("ccop-pretrain", "run", "--images", material.images, "--proposals", material.proposals),
            *("--out", out / "run", *flags),
        ],
        "segmentation": [
            *("ccop-eval", "segmentation", "--weights", material.weights, "--data", material.scenes),
            *("--out", out / "segmentation", "--scale_to", "[0,0]", "--crop-size", 64, "--stride", 48),
            *("--batch-size", 4, "--iterations", 10**5, "--save-every", 50, "--evaluate-every", 20),
            *("--workers", 2, "--accelerator", "cpu"),
        ],
        "proposals": ["ccop-pretrain", "proposals", many, "--out", out / "proposals", "--workers", 2],
    }


def run_load(name: str, argv: Sequence[object], seconds: float) -> Load:
    """Run a command for some time, sample it, and stop it by SIGTERM to its process group."""
    # Behind the commands that are killed meanwhile, which the load would otherwise slow down to a third.
    words = ["nice", "-n", str(NICE), str(BIN / str(argv[0])), *map(str, argv[1:])]
    samples: list[Sample] = []
    process = subprocess.Popen(
        words,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **ENVIRONMENT},
        start_new_session=True,
    )
    begun = time.monotonic()
    with process:
        while time.monotonic() - begun < seconds and process.poll() is None:
            samples += _sample(process.pid, time.monotonic() - begun)
            time.sleep(PERIOD)
        stopped = time.monotonic()
        early = process.poll() is not None
        send(process.pid, signal.SIGTERM)
        assert process.stderr is not None
        said = process.stderr.read().decode(errors="replace")
        code, took = process.wait(), time.monotonic() - stopped
    lost = ""
    overload = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    if early or code != 128 + signal.SIGTERM or took > STOP_WITHIN * overload or "Traceback" in said:
        lost = f"ended with {code} {took:.1f} s after SIGTERM: {said.strip().splitlines()[-1:]}"
    return summary(name, samples, lost or ", ".join(survivors(process.pid)))


def summary(name: str, samples: Sequence[Sample], lost: str = "") -> Load:
    """Judge the samples after the warm-up."""
    if not samples:
        return Load(name, 0.0, 0, 0.0, 0.0, (0, 0, 0, 0), (0, 0, 0, 0), lost or "no samples")
    end = samples[-1].at
    # While workers start, their memory is not that of a worker at work.
    usual = statistics.mode(len(sample.workers) for sample in samples)
    kept = [sample for sample in samples if sample.at >= WARM_UP * end and len(sample.workers) == usual]
    at = np.array([sample.at for sample in kept])
    total = np.array([sample.main + sum(sample.workers) for sample in kept], dtype=np.float64)
    seconds = float(at[-1] - at[0])
    growth = 100 * _slope(at, total) * seconds / float(np.median(total))
    files, threads = (_halves([getattr(sample, field) for sample in kept]) for field in ("files", "threads"))
    if growth > GROWTH_BUDGET:
        lost = lost or f"resident memory grew by {growth:.2f} %"
    # The least numbers: a file that is being written, or a worker that starts, is open only for a moment.
    for what, (first, _, second, _) in (("open files", files), ("threads", threads)):
        if second > first:
            lost = lost or f"{what} grew from {first} to {second}"
    memory = float(np.median(total)) / 2**20
    return Load(name, round(seconds, 1), len(kept), round(memory, 1), round(growth, 3), files, threads, lost)


def _slope(at: np.ndarray, values: np.ndarray) -> float:
    """Theil-Sen slope, over at most 600 samples."""
    step = max(1, len(at) // 600)
    first, second = np.triu_indices(len(at[::step]), 1)
    if not len(first):
        return 0.0
    differences = at[::step][second] - at[::step][first]
    return float(np.median((values[::step][second] - values[::step][first]) / differences))


def _halves(values: Sequence[int]) -> tuple[int, int, int, int]:
    half = max(1, len(values) // 2)
    first, second = values[:half], values[half:] or values[-1:]
    return min(first), max(first), min(second), max(second)


def _sample(process: int, at: float) -> list[Sample]:
    """The processes of a session; nothing if one of them ends meanwhile."""
    try:
        workers = [found for found in _session(process) if found != process]
        main = Path(f"/proc/{process}")
        return [
            Sample(
                at,
                _resident(process),
                tuple(_resident(worker) for worker in workers),
                len(list((main / "fd").iterdir())),
                len(list((main / "task").iterdir())),
            )
        ]
    except (OSError, ValueError):
        return []


def _session(process: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[3] == str(process) and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def _resident(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
