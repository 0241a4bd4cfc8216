"""`make faults`: try every fault and write the raw results and the table in docs/reliability.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import tempfile
import time
from pathlib import Path

from . import report
from .faults import KINDS
from .trials import Trial, warm_bench


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
            for name in arguments.only or KINDS:
                started, found = time.monotonic(), list[Trial]()
                for trial in KINDS[name](bench, random.Random(f"{arguments.seed} {name}")):
                    _show(trial)
                    found.append(trial)
                if arguments.results is not None:
                    _write(arguments.results, name, arguments.seed, found, time.monotonic() - started)
                trials += found
    lost = [trial for trial in trials if trial.lost]
    print(f"{len(trials)} trials, {len(lost)} lost, {time.monotonic() - begun:.0f} s")
    return 1 if lost else 0


def _write(path: Path, kind: str, seed: int, trials: list[Trial], seconds: float) -> None:
    """Renew the results of one kind in a file."""
    kinds = json.loads(path.read_text())["kinds"] if path.exists() else {}
    kinds[kind] = {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "seed": seed,
        "seconds": round(seconds),
        "trials": [trial.document() for trial in trials],
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
