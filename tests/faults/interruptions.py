"""Commands that are killed or stopped at random moments and rerun, and two writers at once."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

from .command import Outcome, send
from .material import Writer
from .trials import Bench, Trial, Trials, damaged, leftovers, trial_of

STOP_WITHIN = 10.0
"""Seconds from a stop signal to the end of the command, on a machine that is not overloaded."""


def after(seconds: float, number: signal.Signals, times: int = 1) -> Callable[[int], None]:
    """Make a function that signals a command's process group after a delay, and optionally again soon after."""

    def interfere(process: int) -> None:
        time.sleep(seconds)
        for _ in range(times):
            send(process, number)
            time.sleep(0.2 if times > 1 else 0)

    return interfere


def kills(bench: Bench, random_numbers: random.Random, trials: int = 2) -> Trials:
    """SIGKILL to the whole process group at two random moments; then the command is rerun until it finishes."""
    for writer in bench.writers:
        whole, duration = bench.undisturbed(writer)
        for number in range(trials):
            out = bench.place(f"killed {number}", writer)
            lost = ""
            for _ in range(2):
                moment = random_numbers.uniform(0.1, 1.0) * duration
                outcome = bench.warm.run(writer.command(out), after(moment, signal.SIGKILL))
                lost = lost or _after_kill(outcome, out)
                if outcome.code in (0, 2):
                    break
            yield resumed(bench, "kill and resume", "SIGKILL", writer, out, whole, outcome, lost)


def is_finished(outcome: Outcome) -> bool:
    """Whether a conversion was refused because an earlier one had written everything before it was interrupted."""
    return outcome.code == 2 and "exists: pass --overwrite" in outcome.last


def _after_kill(outcome: Outcome, out: Path) -> str:
    # A file is finished if the kill before came after it was written.
    if outcome.code not in (0, 128 + signal.SIGKILL) and not is_finished(outcome):
        return outcome.flaw() or f"exit code {outcome.code}: {outcome.last}"
    if outcome.orphans:
        return f"left running: {', '.join(outcome.orphans)}"
    return ", ".join(f"half-written: {name}" for name in damaged(out.parent))


def signals(bench: Bench, random_numbers: random.Random) -> Trials:
    """SIGTERM and SIGINT to the whole process group, once and twice; then the command is rerun."""
    for writer in bench.writers:
        whole, duration = bench.undisturbed(writer)
        for number in (signal.SIGTERM, signal.SIGINT):
            for times in (1, 2):
                fault = number.name if times == 1 else f"{number.name} twice"
                out = bench.place(fault, writer)
                when = random_numbers.uniform(0.2, 0.9) * duration
                outcome = bench.warm.run(writer.command(out), after(when, number, times))
                lost = stopped(outcome, number, when, out)
                yield resumed(bench, "signals", fault, writer, out, whole, outcome, lost)


def stopped(outcome: Outcome, number: signal.Signals, when: float, out: Path, killed_before: bool = False) -> str:
    """Why a command did not stop properly after a signal; empty if it did.

    Args:
        outcome: how it ended.
        number: the signal.
        when: seconds from its start to the signal.
        out: its output.
        killed_before: whether an earlier command was killed, whose temporary files may still be there.
    """
    if flaw := outcome.flaw():
        return flaw
    if outcome.code not in (0, 128 + number):
        return f"exit code {outcome.code} after {number.name}: {outcome.last}"
    overload = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    if outcome.code and outcome.wall > when + STOP_WITHIN * overload:
        return f"ended {outcome.wall - when:.1f} s after {number.name}"
    return ", ".join(damaged(out.parent) + ([] if killed_before else leftovers(out.parent)))


def writers(bench: Bench, random_numbers: random.Random) -> Trials:
    """The same command started twice at once with the same output."""
    for writer in bench.writers:
        whole, _ = bench.undisturbed(writer)
        out = bench.place("shared", writer)
        outcomes: list[Outcome] = []
        both = [
            threading.Thread(target=lambda warm=warm: outcomes.append(warm.run(writer.command(out))))  # noqa: B023
            for warm in (bench.warm, bench.second)
        ]
        for each in both:
            each.start()
        for each in both:
            each.join()
        outcomes.sort(key=lambda outcome: outcome.code)
        first, second = outcomes
        lost = first.flaw() or (f"neither succeeded: {first.last}" if first.code else "")
        lost = lost or (second.refusal() if second.code else "")
        if not lost and second.code == 2 and str(out) not in second.last:
            lost = f"does not name the output: {second.last}"
        if not lost and second.code == 2 and "process" not in second.last and "exist" not in second.last:
            lost = f"does not name the process: {second.last}"
        if not lost and writer.essence(out) != whole:
            lost = "other contents than those of one writer"
        yield trial_of("two writers", "started at once", writer.name, second, lost or ", ".join(leftovers(out.parent)))


def resumed(
    bench: Bench, kind: str, fault: str, writer: Writer, out: Path, whole: object, outcome: Outcome, lost: str
) -> Trial:
    """Rerun an interrupted command to its end and compare its output with an undisturbed one."""
    again = bench.warm.run(writer.command(out))
    finished = is_finished(again)
    if not lost and ((again.code and not finished) or again.orphans):
        lost = f"did not resume: {again.flaw() or again.last}"
    if not lost and writer.essence(out) != whole:
        lost = "the resumed result is not that of an undisturbed run"
    return trial_of(kind, fault, writer.name, outcome, lost or ", ".join(leftovers(out.parent)))
