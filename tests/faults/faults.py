"""The faults, tried on real commands, with the outcome.

A command passes if it produces the right result or a one-line refusal with exit code 2 (143 or 130 after a signal),
without a traceback or unfinished files.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from . import hostile
from .command import CPU_BUDGET, MEMORY_BUDGET, Outcome, run, send, unfinished
from .material import Material, Writer

Trials = Iterator["Trial"]


@dataclass(frozen=True)
class Trial:
    """One fault tried on one command.

    Attributes:
        kind: kind of fault, a row of the table.
        fault: description of the fault.
        command: name of the command.
        lost: why the command failed; empty if it passed.
        skipped: why the fault could not be tried; empty if it was.
        code: the command's exit code.
        said: its last line on standard error.
        cpu: its CPU time in seconds.
        memory: its peak resident memory in bytes.
    """

    kind: str
    fault: str
    command: str
    lost: str = ""
    skipped: str = ""
    code: int = 0
    said: str = ""
    cpu: float = 0.0
    memory: int = 0

    def document(self) -> dict[str, object]:
        """The trial as JSON."""
        return asdict(self)


def _trial(kind: str, fault: str, command: str, outcome: Outcome, lost: str) -> Trial:
    # Paths in this run's folder would differ every time.
    said = outcome.last.replace(os.environ.get("FAULTS_ROOT", "\0"), "...")[:300]
    return Trial(kind, fault, command, lost, "", outcome.code, said, round(outcome.cpu, 2), outcome.memory)


def paths(material: Material, random_numbers: random.Random) -> Trials:
    """Output paths that cannot be created and unreachable inputs, for every command that writes."""
    kind, root = "paths", material.root / "paths"
    root.mkdir()
    (root / "file").write_text("kept")
    (root / "folder").mkdir()
    (root / "folder" / "kept").write_text("kept")
    (root / "folder.pth").mkdir()
    (root / "loop").symlink_to(root / "loop")
    for writer in material.writers.values():
        taken = root / ("folder" if writer.suffix else "file")
        outs = {
            "ENOTDIR": root / "file" / "out",
            "EISDIR" if writer.suffix else "EEXIST": taken,
            "ENAMETOOLONG": root / ("n" * 300),
            "ELOOP": root / "loop" / "out",
        }
        for fault, place in outs.items():
            out = place.with_name(f"{place.name}{writer.suffix}")
            outcome = run(writer.command(out))
            lost = outcome.refusal()
            if not lost and str(root) not in outcome.last:
                lost = f"does not name the path: {outcome.last}"
            if not lost and ((root / "file").read_text(), (root / "folder" / "kept").read_text()) != ("kept", "kept"):
                lost = "changed a file that was there"
            yield _trial(kind, fault, writer.name, outcome, lost)
    for fault, path in {"ENOENT": "none", "ENOTDIR": "file/x", "ENAMETOOLONG": "n" * 300, "ELOOP": "loop"}.items():
        for name, command in {
            "proposals": ["ccop-pretrain", "proposals", root / path, "--out", root / "never"],
            "run": ["ccop-pretrain", "run", "--images", root / path, "--objective", "mocov2", "--out", root / "never"],
            "info": ["ccop-hub", "info", root / path],
            "compare": ["ccop-eval", "compare", root / path, root / path],
        }.items():
            outcome = run(command)
            lost = outcome.refusal() or ("left a folder behind" if (root / "never").exists() else "")
            yield _trial(kind, f"{fault} of an input", name, outcome, lost)


def mounted(material: Material, random_numbers: random.Random) -> Trials:
    """A read-only folder and disks that are too small, in a separate mount namespace."""
    can = os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0
    place, report = material.root / "mounted", material.root / "left"
    place.mkdir()
    trials = [("read-only folder", "read-only tmpfs", "1m"), *(("full disk", f"{n} KiB", f"{n}k") for n in (4, 16, 64))]
    for writer in material.writers.values():
        for kind, fault, size in trials:
            if not can:
                yield Trial(kind, fault, writer.name, skipped="needs root and mount namespaces (unshare -m)")
                continue
            read_only = f"mount -o remount,ro {place};" if kind == "read-only folder" else ""
            script = (
                f'mount -t tmpfs -o size={size} none {place}; {read_only} "$@"; code=$?;'
                f"find {place} -name '*.partial' > {report}; exit $code"
            )
            command = writer.command(place / f"out{writer.suffix}")
            words = [shutil.which(str(command[0]), path=str(Path(sys.executable).parent)), *command[1:]]
            outcome = run(["unshare", "-m", "sh", "-c", script, "sh", *words])
            lost = outcome.flaw() if outcome.code == 0 else outcome.refusal()
            if outcome.code == 0 and kind == "read-only folder":
                lost = "succeeded in a read-only folder"
            yield _trial(kind, fault, writer.name, outcome, lost or report.read_text().strip())


def kills(material: Material, random_numbers: random.Random, trials: int = 2) -> Trials:
    """SIGKILL to the whole process group at two random moments; then the command is rerun until it finishes."""
    for writer in material.writers.values():
        whole, duration = _undisturbed(material, writer)
        for number in range(trials):
            out = material.root / f"killed-{writer.name}-{number}{writer.suffix}"
            for _ in range(2):
                outcome = run(writer.command(out), after(random_numbers.uniform(0.2, 1.0) * duration, signal.SIGKILL))
                if outcome.code == 0:
                    break
            yield _resumed("kill and resume", "SIGKILL", writer, out, whole, outcome, "")


def signals(material: Material, random_numbers: random.Random) -> Trials:
    """SIGTERM and SIGINT to the whole process group, once and twice; then the command is rerun."""
    for writer in material.writers.values():
        whole, duration = _undisturbed(material, writer)
        for number in (signal.SIGTERM, signal.SIGINT):
            for times in (1, 2):
                out = material.root / f"stopped-{writer.name}-{number.name}-{times}{writer.suffix}"
                when = random_numbers.uniform(0.4, 0.9) * duration
                outcome = run(writer.command(out), after(when, number, times))
                lost = outcome.flaw()
                if not lost and outcome.code not in (0, 128 + number):
                    lost = f"exit code {outcome.code} after {number.name}"
                fault = number.name if times == 1 else f"{number.name} twice"
                yield _resumed("signals", fault, writer, out, whole, outcome, lost)


def writers(material: Material, random_numbers: random.Random) -> Trials:
    """The same command started twice at once with the same output."""
    for writer in material.writers.values():
        whole, _ = _undisturbed(material, writer)
        out = material.root / f"shared-{writer.name}{writer.suffix}"
        outcomes: list[Outcome] = []

        def start(writer: Writer = writer, out: Path = out, outcomes: list[Outcome] = outcomes) -> None:
            outcomes.append(run(writer.command(out)))

        both = [threading.Thread(target=start) for _ in range(2)]
        for each in both:
            each.start()
        for each in both:
            each.join()
        outcomes.sort(key=lambda outcome: outcome.code)
        first, second = outcomes
        lost = first.flaw() or (f"neither succeeded: {first.last}" if first.code else "")
        lost = lost or (second.refusal() if second.code else "")
        if not lost and second.code == 2 and str(out) not in second.last:
            lost = f"does not name the folder: {second.last}"
        if not lost and writer.essence(out) != whole:
            lost = "other contents than those of one writer"
        lost = lost or ", ".join(unfinished(out if out.is_dir() else out.parent))
        yield _trial("two writers", "started at once", writer.name, second, lost)


def hostiles(material: Material, random_numbers: random.Random) -> Trials:
    """Hostile files, with limits on CPU time and memory."""
    folder = material.root / "hostile"
    folder.mkdir()
    linear = material.writers["linear"]
    _undisturbed(material, linear)
    result = json.loads((material.root / "whole-linear" / "result.json").read_text())
    usual: dict[tuple[object, object], float] = {}
    for name, (command, path) in hostile.cases(folder, material.images, material.proposals, result).items():
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
    return _trial(kind, name, outcome=outcome, command="", lost=lost or ", ".join(unfinished(folder)))


KINDS: dict[str, Callable[[Material, random.Random], Trials]] = {
    "paths": paths,
    "mounted": mounted,
    "kills": kills,
    "signals": signals,
    "writers": writers,
    "hostile": hostiles,
}
"""Name on the command line -> its trials."""


def after(seconds: float, number: signal.Signals, times: int = 1) -> Callable[[subprocess.Popen[bytes]], None]:
    """Make a function that signals a command's process group after a delay, and optionally again soon after."""

    def interfere(process: subprocess.Popen[bytes]) -> None:
        time.sleep(seconds)
        for _ in range(times):
            send(process, number)
            time.sleep(0.2)

    return interfere


_whole: dict[tuple[Path, str], tuple[object, float]] = {}


def _undisturbed(material: Material, writer: Writer) -> tuple[object, float]:
    """A command's output when undisturbed, and its duration in seconds."""
    key = (material.root, writer.name)
    if key not in _whole:
        out = material.root / f"whole-{writer.name}{writer.suffix}"
        outcome = run(writer.command(out))
        if outcome.code:
            raise RuntimeError(f"{writer.name} failed undisturbed: {outcome.error}")
        _whole[key] = (writer.essence(out), outcome.wall)
    return _whole[key]


def _resumed(kind: str, fault: str, writer: Writer, out: Path, whole: object, outcome: Outcome, lost: str) -> Trial:
    again = run(writer.command(out))
    finished = again.code == 2 and writer.suffix and "exist" in again.last
    if not lost and again.code and not finished:
        lost = f"did not resume: {again.last}"
    if not lost and writer.essence(out) != whole:
        lost = "the resumed result is not that of an undisturbed run"
    # Files left by a kill are removed only after a minute, in case their writer is alive on another machine.
    left = [] if fault == "SIGKILL" else unfinished(out if out.is_dir() else out.parent)
    return _trial(kind, fault, writer.name, outcome, lost or ", ".join(left))
