"""Run a command as a user would, in a subprocess, and inspect what it left behind."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

BIN = Path(sys.executable).parent
TIMEOUT = 300.0
"""Seconds after which a command counts as hanging."""

GRACE = 10.0
"""Seconds in which the workers of a killed command must end."""

ENVIRONMENT = {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}

CPU_BUDGET = 5.0
"""Extra CPU seconds allowed for a hostile file, compared with a missing file."""

MEMORY_BUDGET = 1 << 30
"""Limit on resident memory, in bytes."""


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Attributes:
        code: exit status as a shell reports it (128 plus the signal number).
        output: standard output and error.
        error: standard error.
        cpu: CPU time in seconds, including processes that it waited for.
        memory: peak resident memory of the command or any of its processes, in bytes.
        wall: wall time in seconds.
        orphans: processes of the command that were still running some seconds after it had ended.
    """

    code: int
    output: str
    error: str
    cpu: float
    memory: int
    wall: float
    orphans: tuple[str, ...] = ()

    @property
    def last(self) -> str:
        """The last line of standard error, where a refusal is printed."""
        lines = self.error.strip().splitlines()
        return lines[-1] if lines else ""

    def refusal(self) -> str:
        """Why this is not a one-line refusal; empty if it is."""
        if self.code != 2:
            return f"exit code {self.code}: {self.last}"
        return self.flaw() or ("" if self.last.startswith("ccop-") else f"no refusal: {self.last}")

    def flaw(self) -> str:
        """An outcome that is never acceptable, such as a traceback; empty if there is none."""
        if self.code == 124:
            return "never ended"
        if "Traceback (most recent call last)" in self.output:
            return f"a traceback: {self.last}"
        if self.orphans:
            return f"left running: {', '.join(self.orphans)}"
        return "" if self.code in (0, 2, 130, 143) else f"exit code {self.code}: {self.last}"


def run(argv: Sequence[object], interfere: Callable[[int], None] | None = None, timeout: float = TIMEOUT) -> Outcome:
    """Run one of the programs, or any other command.

    Args:
        argv: the command line; `ccop-...` commands come from this Python's environment.
        interfere: called with the process id in a separate thread once the process has started.
        timeout: seconds until the whole process group is killed; the exit code is then 124.
    """
    words = [str(BIN / str(word)) if str(word).startswith("ccop-") else os.fspath(str(word)) for word in argv]
    environment = {**os.environ, **ENVIRONMENT}
    begun = time.monotonic()
    with (
        Path(os.devnull).open("rb") as nothing,
        subprocess.Popen(
            words,
            stdin=nothing,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
        ) as process,
    ):
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            send(process.pid, signal.SIGKILL)

        texts: dict[str, bytes] = {}

        def drain(name: str) -> None:
            texts[name] = getattr(process, name).read()

        readers = [threading.Thread(target=drain, args=(name,)) for name in ("stdout", "stderr")]
        timer = threading.Timer(timeout, expire)
        threads = [*readers, timer]
        if interfere is not None:
            threads.append(threading.Thread(target=interfere, args=(process.pid,)))
        for thread in threads:
            thread.start()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        timer.cancel()
        wall = time.monotonic() - begun
        # Processes that outlive the command would keep its pipes open.
        orphans = survivors(process.pid)
        for thread in threads:
            thread.join()
    code = process.returncode if process.returncode >= 0 else 128 - process.returncode
    error = texts.get("stderr", b"").decode(errors="replace")
    output = texts.get("stdout", b"").decode(errors="replace") + error
    # Linux reports kilobytes, macOS bytes.
    memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    cpu = usage.ru_utime + usage.ru_stime
    return Outcome(124 if expired.is_set() else code, output, error, cpu, memory, wall, orphans)


def send(process: int, number: signal.Signals) -> None:
    """Signal a command's process group, as a terminal or scheduler does."""
    try:
        os.killpg(process, number)
    except ProcessLookupError:
        return


def survivors(process: int) -> tuple[str, ...]:
    """Wait for the processes of an ended command, then kill and return those that are still running after `GRACE`."""
    until = time.monotonic() + GRACE
    while _runs(process) and time.monotonic() < until:
        time.sleep(0.02)
    if not _runs(process):
        return ()
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, fields = stat.read_text().rpartition(")")
            if fields.split()[2] == str(process):
                found.append(f"{name.partition('(')[2]} {stat.parent.name}")
        except OSError:
            continue
    send(process, signal.SIGKILL)
    return tuple(found or ["a process"])


def _runs(process: int) -> bool:
    """Whether a process group has a process; zombies count, and vanish when init has read their status."""
    try:
        os.killpg(process, 0)
    except ProcessLookupError:
        return False
    return True


def contents(folder: Path, wanted: Callable[[Path], bool] = lambda path: True) -> dict[str, str]:
    """Relative path -> digest of every wanted file in a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and wanted(path)
    }
