"""`make soak`: long load and random kills; writes the raw results and their section of docs/reliability.md."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from ..faults import report
from ..faults.trials import warm_bench
from .kills import Killed, random_kills
from .load import Load, loads, run_load


def main() -> int:
    """Returns 1 if anything was lost, half-written or left behind, or if a load grew."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="total time, beyond the preparations")
    parser.add_argument("--seed", type=int, help="of the moments of kills; the time by default")
    parser.add_argument("--results", type=Path, help="JSON file for the raw results; the committed one renews the page")
    parser.add_argument("--shared", action="store_true", help="note that other work ran on the machine")
    arguments = parser.parse_args()
    seed = int(time.time()) if arguments.seed is None else arguments.seed
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        os.environ["FAULTS_ROOT"] = folder
        os.environ["CCOP_CACHE"] = f"{folder}/cache"
        with warm_bench(Path(folder)) as bench:
            commands = loads(bench.material)
            begun, seconds = time.monotonic(), 60 * arguments.minutes
            measured: list[Load] = []

            def load() -> None:
                for name, argv in commands.items():
                    measured.append(run_load(name, argv, seconds / len(commands)))
                    print(f"load {name}: {measured[-1].lost or measured[-1]}", flush=True)

            thread = threading.Thread(target=load)
            thread.start()
            killed = []
            for one in random_kills(bench, seed, begun + seconds):
                killed.append(one)
                if one.failed:
                    print(f"lost  {one}", flush=True)
                elif len(killed) % 20 == 0:
                    print(f"{sum(len(each.kills) for each in killed)} kills", flush=True)
            thread.join()
            took = time.monotonic() - begun
    document = results(seed, took, arguments.shared, measured, killed)
    if arguments.results is not None:
        arguments.results.write_text(json.dumps(document, indent=1) + "\n")
        if arguments.results.resolve() == report.SOAK:
            report.write_page()
    failed = [one for one in killed if one.failed]
    print(f"{document['kills']} kills of {len(killed)} commands, {len(failed)} failed, {took:.0f} s")
    return 1 if failed or any(one.lost for one in measured) else 0


def results(seed: int, seconds: float, shared: bool, measured: list[Load], killed: list[Killed]) -> dict[str, Any]:
    """The raw results, without the commands in which nothing failed but with their counts."""
    commands: dict[str, dict[str, int]] = {}
    for one in killed:
        row = commands.setdefault(one.command, {"finished": 0, "SIGKILL": 0, "SIGTERM": 0, "SIGINT": 0})
        row["finished"] += 1
        for name in one.kills:
            row[name] += 1
    return {
        "date": datetime.date.today().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "shared": shared,
        "seed": seed,
        "seconds": round(seconds),
        "kills": sum(len(one.kills) for one in killed),
        "full processes": sum(one.full for one in killed),
        "lost": sum(bool(one.lost) for one in killed),
        "half-written": sum(bool(one.half_written) for one in killed),
        "orphans": sum(bool(one.orphans) for one in killed),
        "left behind": sum(bool(one.left) for one in killed),
        "other": sum(bool(one.refused) for one in killed),
        "commands": dict(sorted(commands.items())),
        "failures": [one.document() for one in killed if one.failed],
        "loads": [one.document() for one in measured],
    }


if __name__ == "__main__":
    raise SystemExit(main())
