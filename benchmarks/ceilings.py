"""Measure this machine's ceilings: arithmetic and memory bandwidth on one core, and on all.

    python benchmarks/ceilings.py --out RESULTS.json

Arithmetic: products of float32 matrices by PyTorch, 2 N^3 operations each. Bandwidth: copies of a block far larger than
the caches, counting the bytes read and the bytes written. Both are medians of several rounds; the floors of
docs/performance.md are operations or bytes divided by these.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from machine import facts, spread, update

SIDE = 2048
BLOCK = 512 << 20  # bytes
ROUNDS = 15


def rate(amount: float, function: Callable[[], Any]) -> dict[str, float]:
    """Return 10**9 units per second of a function that handles `amount` units: median, minimum and maximum."""
    function()
    rates = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        function()
        rates.append(amount / (time.perf_counter() - begun) / 1e9)
    return spread(rates)


def ceilings(threads: int) -> dict[str, Any]:
    """Measure with this number of threads."""
    torch.set_num_threads(threads)
    left, right = torch.rand(SIDE, SIDE), torch.rand(SIDE, SIDE)
    product = torch.empty(SIDE, SIDE)
    source, target = torch.ones(BLOCK // 4), torch.zeros(BLOCK // 4)
    return {
        "float32, GFLOP/s": rate(2 * SIDE**3, lambda: torch.matmul(left, right, out=product)),
        "bandwidth, GB/s": rate(2 * BLOCK, lambda: target.copy_(source)),
    }


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file for the results; printed by default")
    machine, cores = facts("torch"), os.cpu_count() or 1
    given = parser.parse_args()
    results = {"one core": ceilings(1)}
    if cores > 1:
        results[f"{cores} cores"] = ceilings(cores)
    update(given.out, {"script": "benchmarks/ceilings.py", "machine": machine, **results})


if __name__ == "__main__":
    main()
