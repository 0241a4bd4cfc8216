"""Random kills of all commands that write, at random moments; each command is then rerun to its end."""

from __future__ import annotations

import random
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from queue import SimpleQueue

from ..faults.command import Outcome, run
from ..faults.interruptions import after, is_finished, stopped
from ..faults.material import Writer
from ..faults.trials import Bench, damaged, leftovers
from ..faults.warm import Warm

SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
"""Each kill takes one of these, sent to the whole process group."""

MOST_KILLS = 6
"""Kills of one command before it may finish."""

FULL_PROCESSES = 0.04
"""Share of the commands that start as users start them, instead of in the fork of a warm process, which is faster."""

IMPORTS = 4.0
"""Seconds in which such a command starts."""


@dataclass
class Killed:
    """One command, killed several times and rerun to its end.

    Attributes:
        command: name of the command.
        kills: the signals that interrupted it, by name.
        full: whether it ran in processes of its own.
        lost: why the final output is not that of an undisturbed run.
        half_written: files that were not readable under their final names.
        orphans: processes that outlived the command.
        left: temporary files after the last run.
        refused: what else went wrong after a signal.
    """

    command: str
    full: bool = False
    kills: list[str] = field(default_factory=list)
    lost: str = ""
    half_written: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    refused: str = ""

    @property
    def failed(self) -> bool:
        """Whether anything was lost or left behind."""
        return bool(self.lost or self.half_written or self.orphans or self.left or self.refused)

    def document(self) -> dict[str, object]:
        """The command as JSON."""
        return asdict(self)


class Turns:
    """Deals out the commands; next is the one on which the least time was spent, in random order at first.

    All commands so take the same time, and short ones are killed more often.
    """

    def __init__(self, writers: Sequence[Writer], random_numbers: random.Random) -> None:
        self._writers = random_numbers.sample(writers, len(writers))
        self._spent = dict.fromkeys((writer.name for writer in self._writers), 0.0)
        self._busy: set[str] = set()
        self._number = 0
        self._lock = threading.Lock()

    @contextmanager
    def take(self) -> Iterator[tuple[int, Writer]]:
        """A command that no other thread has taken, and the number of the turn."""
        with self._lock:
            free = [writer for writer in self._writers if writer.name not in self._busy]
            writer = min(free, key=lambda each: self._spent[each.name])
            self._busy.add(writer.name)
            self._number += 1
            number = self._number
        begun = time.monotonic()
        try:
            yield number, writer
        finally:
            with self._lock:
                self._spent[writer.name] += time.monotonic() - begun
                self._busy.discard(writer.name)


def random_kills(bench: Bench, seed: int, until: float) -> Iterator[Killed]:
    """Kill commands until a moment of `time.monotonic`, two at a time."""
    turns = Turns(bench.writers, random.Random(seed))
    found: SimpleQueue[Killed | BaseException | None] = SimpleQueue()

    def loop(warm: Warm, random_numbers: random.Random) -> None:
        try:
            while time.monotonic() < until:
                with turns.take() as (number, writer):
                    found.put(_kill(bench, warm, random_numbers, writer, f"soak {number}", until))
            found.put(None)
        except BaseException as error:
            found.put(error)

    both = (bench.warm, bench.second)
    for number, warm in enumerate(both):
        threading.Thread(target=loop, args=(warm, random.Random(f"{seed} {number}")), daemon=True).start()
    for _ in both:
        while (one := found.get()) is not None:
            if isinstance(one, BaseException):
                raise one
            yield one


def _kill(bench: Bench, warm: Warm, random_numbers: random.Random, writer: Writer, name: str, until: float) -> Killed:
    whole, duration = bench.undisturbed(writer, warm)
    full = random_numbers.random() < FULL_PROCESSES
    start: Callable[..., Outcome] = run if full else warm.run
    out = bench.place(name, writer)
    found = Killed(writer.name, full)
    for _ in range(random_numbers.randint(1, MOST_KILLS)):
        number = random_numbers.choice(SIGNALS)
        when = random_numbers.uniform(0.0, 1.1) * duration + (IMPORTS if full else 0.0)
        outcome = start(writer.command(out), after(when, number))
        interrupted = outcome.code == 128 + number
        if interrupted:
            found.kills.append(number.name)
        found.half_written += damaged(out.parent)
        found.orphans += outcome.orphans
        if number != signal.SIGKILL or not interrupted:
            found.refused = found.refused or _refused(outcome, number, when, out, "SIGKILL" in found.kills)
        if outcome.code in (0, 2) or time.monotonic() > until:
            break
    again = start(writer.command(out))
    found.orphans += again.orphans
    finished = is_finished(again)
    if again.code and not finished:
        found.lost = f"did not resume: {again.flaw() or again.last}"
    elif writer.essence(out) != whole:
        found.lost = "the resumed result is not that of an undisturbed run"
    found.left = leftovers(out.parent)
    if not found.failed:
        shutil.rmtree(out.parent)
    return found


def _refused(outcome: Outcome, number: signal.Signals, when: float, out: Path, killed_before: bool) -> str:
    if is_finished(outcome):
        return ""
    if outcome.code == 128 + signal.SIGINT and number == signal.SIGINT and "Traceback" in outcome.error:
        # Python itself reports Ctrl-C with a traceback before the program has begun.
        return "" if "run_program" not in outcome.error else outcome.flaw()
    return stopped(outcome, number, when, out, killed_before)
