import operator
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from ccop_pretrain.common.parallel import available_cores, ordered_map

from ccop_hub.errors import UserError


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_items_order(workers: int) -> None:
    assert list(ordered_map(operator.neg, range(200), workers)) == [-item for item in range(200)]


def test_items_are_read_as_results_are_taken() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while taken < 100_000:
            taken += 1
            yield taken

    results = ordered_map(operator.neg, items(), workers=2)
    assert next(results) == -1
    assert taken < 100
    results.close()  # type: ignore[attr-defined]


def test_dead_worker_is_a_plain_error() -> None:
    with pytest.raises(UserError, match="worker process died"):
        list(ordered_map(os._exit, [1, 1], workers=2))


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    # Nobody may be there to collect it: a zombie has ended.
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_workers_end_with_a_killed_parent() -> None:
    script = """
import multiprocessing, time
from ccop_pretrain.common.parallel import ordered_map
results = ordered_map(time.sleep, [0.0] * 32 + [60.0] * 100, workers=2)
next(results)
print(*(child.pid for child in multiprocessing.active_children()), flush=True)
list(results)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert len(workers) == 2
        assert all(running(worker) for worker in workers)
        parent.kill()
    for _ in range(200):
        if not any(running(worker) for worker in workers):
            break
        time.sleep(0.05)
    left = [worker for worker in workers if running(worker)]
    for worker in left:
        os.kill(worker, 9)
    assert left == []


def test_available_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
