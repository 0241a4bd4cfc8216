"""Memory of this process and its children, in bytes. Where there is no /proc, children are not counted."""

from __future__ import annotations

import os
import platform
import re
import resource
from contextlib import suppress
from multiprocessing import active_children
from pathlib import Path

_PROC = Path("/proc")


def peak_memory() -> int:
    """Return the peak resident memory of this process since it started or since `reset_peak`."""
    status = _PROC / "self" / "status"
    if status.exists():  # on Linux, ru_maxrss includes the memory of the parent process
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) << 10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak << 10


def private_memory(process: int) -> int:
    """Return the memory of a process that it shares with no other; 0 if it has ended or cannot be asked."""
    with suppress(OSError):
        text = (_PROC / str(process) / "smaps_rollup").read_text()
        return sum(int(kilobytes) for kilobytes in re.findall(r"Private_\w+:\s+(\d+) kB", text)) << 10
    return 0


def children_memory() -> int:
    """Return the private memory of the processes that this one started with `multiprocessing`."""
    return sum(private_memory(child.pid) for child in active_children() if child.pid is not None)


def memory_in_use() -> int:
    """Return the peak memory of this process plus the private memory of its children."""
    return peak_memory() + children_memory()


def resident_memory() -> int:
    """Return the resident memory of this process; its peak where there is no /proc."""
    statm = _PROC / "self" / "statm"
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak_memory()
