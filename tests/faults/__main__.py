"""`make faults`: try every fault and write the raw results and the table in docs/reliability.md."""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import random
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

from . import report
from .faults import BOTH, KINDS
from .trials import Bench, Trial, warm_bench


def main() -> int:
    """Returns 1 if any command failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", nargs="*", choices=sorted(KINDS), help="kinds of faults; all by default")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills and signals")
    parser.add_argument(
        "--results",
        type=Path,
        help="JSON file in which to renew these kinds; the committed one renews the page",
    )
    arguments = parser.parse_args()
    begun, trials = time.monotonic(), list[Trial]()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        os.environ["FAULTS_ROOT"] = folder
        os.environ["CCOP_CACHE"] = f"{folder}/cache"
        with warm_bench(Path(folder)) as bench:
            for found in _tried(bench, list(arguments.only or KINDS), arguments.seed):
                trials += found.trials
                if arguments.results is not None:
                    _write(arguments.results, arguments.seed, found)
    lost = [trial for trial in trials if trial.lost]
    print(f"{len(trials)} trials, {len(lost)} lost, {time.monotonic() - begun:.0f} s")
    return 1 if lost else 0


@dataclass(frozen=True)
class _Found:
    kind: str
    trials: list[Trial]
    seconds: float


def _tried(bench: Bench, kinds: list[str], seed: int) -> Iterator[_Found]:
    """Try the kinds of faults, two at a time; those that need both warm processes come last, alone."""
    waiting, found = SimpleQueue[str](), SimpleQueue[_Found | BaseException]()
    alone = [name for name in kinds if name in BOTH]
    for name in (name for name in kinds if name not in BOTH):
        waiting.put(name)

    def work(own: Bench) -> None:
        with contextlib.suppress(Empty):
            while True:
                name = waiting.get_nowait()
                try:
                    found.put(_tried_one(own, name, seed))
                except BaseException as error:
                    found.put(error)

    for own in (bench, bench.exchanged()):
        threading.Thread(target=work, args=(own,), daemon=True).start()
    for _ in range(len(kinds) - len(alone)):
        one = found.get()
        if isinstance(one, BaseException):
            raise one
        yield one
    for name in alone:
        yield _tried_one(bench, name, seed)


def _tried_one(bench: Bench, name: str, seed: int) -> _Found:
    started, trials = time.monotonic(), list[Trial]()
    for trial in KINDS[name](bench, random.Random(f"{seed} {name}")):
        _show(trial)
        trials.append(trial)
    return _Found(name, trials, time.monotonic() - started)


def _write(path: Path, seed: int, found: _Found) -> None:
    """Renew the results of one kind in a file."""
    kinds = json.loads(path.read_text())["kinds"] if path.exists() else {}
    kinds[found.kind] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "seed": seed,
        "seconds": round(found.seconds),
        "trials": [trial.document() for trial in found.trials],
    }
    document = {"kinds": {name: kinds[name] for name in KINDS if name in kinds}}
    path.write_text(json.dumps(document, indent=1) + "\n")
    if path.resolve() == report.FAULTS:
        report.write_page()


def _show(trial: Trial) -> None:
    verdict = "lost" if trial.lost else "skip" if trial.skipped else "held"
    reason = f": {trial.lost or trial.skipped}" if trial.lost or trial.skipped else ""
    print(f"{verdict}  {trial.kind} / {trial.fault} / {trial.command}{reason}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
