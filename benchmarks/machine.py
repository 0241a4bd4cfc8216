"""Shared by the benchmarks: facts about the machine, peak memory, time, and files of results."""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def facts(*packages: str) -> dict[str, Any]:
    """Describe the machine, and the versions of some packages."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.findall(r"model name\s*:\s*(.*)", cpuinfo.read_text()) if cpuinfo.exists() else []
    return {
        "processor": found[0] if found else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load at the start": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
    }


def peak_mb() -> float:
    """Return the peak memory of this process in MB (2**20 bytes)."""
    status = Path("/proc/self/status")
    if status.exists():  # on Linux, ru_maxrss includes the memory of the parent process
        return round(int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) / 1024, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if platform.system() == "Darwin" else 1 << 10), 1)


def tree_memory(process: int) -> int:
    """Return the peak memory of a process plus the private memory of its descendants, in bytes; Linux only."""
    private = sum(_kilobytes(each, "smaps_rollup", r"Private_\w+:\s+(\d+) kB") for each in _descendants(process))
    return (_kilobytes(process, "status", r"VmHWM:\s+(\d+) kB") + private) << 10


def _descendants(process: int) -> list[int]:
    try:
        names = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [each for name in names for each in (int(name), *_descendants(int(name)))]


def _kilobytes(process: int, file: str, pattern: str) -> int:
    try:
        return sum(map(int, re.findall(pattern, Path(f"/proc/{process}/{file}").read_text())))
    except OSError:
        return 0


def cpu_seconds(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Call a function and return its CPU time and result."""
    begun = time.process_time()
    result = function(*arguments)
    return time.process_time() - begun, result


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the median, minimum and maximum."""
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def update(path: Path | None, changes: dict[str, Any]) -> None:
    """Replace some entries of a JSON file of results, or print them if no file is given."""
    results = json.loads(path.read_text(encoding="utf-8")) if path and path.exists() else {}
    text = json.dumps(results | changes, indent=2) + "\n"
    if path is None:
        print(text, end="")
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
