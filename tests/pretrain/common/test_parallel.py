import multiprocessing
import operator
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from ccop_pretrain.common.parallel import OrderedMap

from ccop_hub.errors import UserError
from ccop_hub.stopping import STOP_SIGNALS


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_items_order(workers: int) -> None:
    with OrderedMap(operator.neg, range(200), workers) as results:
        assert list(results) == [-item for item in range(200)]


def test_items_are_read_as_results_are_taken() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while taken < 100_000:
            taken += 1
            yield taken

    with OrderedMap(operator.neg, items(), workers=2) as results:
        assert next(iter(results)) == -1
        assert taken < 100


def test_dead_worker_is_a_plain_error() -> None:
    with pytest.raises(UserError, match="worker process died"), OrderedMap(os._exit, [1, 1], workers=2) as results:
        list(results)


def test_an_error_keeps_what_is_done_and_stops_the_workers() -> None:
    before = set(multiprocessing.active_children())
    kept: dict[int, float] = {}
    with pytest.raises(ValueError, match="enough"):
        fail_after_two(kept)
    # The last result taken, and the two that one worker finishes while the other sleeps for a minute.
    assert kept == {1: 0.0, 3: 0.0, 4: 0.0}
    assert set(multiprocessing.active_children()) <= before


def fail_after_two(kept: dict[int, float]) -> None:
    with OrderedMap(slept, [0.0, 0.0, 60.0, 0.0, 0.0, 60.0], workers=2) as results:
        iterator = iter(results)
        assert [next(iterator), next(iterator)] == [0.0, 0.0]
        try:
            raise ValueError("enough")
        finally:
            kept.update(results.finished())


def slept(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_the_group_reaches_only_the_parent(number: signal.Signals) -> None:
    """At any time, even while workers start, when they would print tracebacks or lose their results."""
    script = """
import time
from ccop_hub.stopping import Stopped, stoppable
from ccop_pretrain.common.parallel import OrderedMap
try:
    with stoppable(), OrderedMap(time.sleep, [0.0] * 3 + [60.0] * 100, workers=2) as results:
        print("ready", flush=True)
        for result in results:
            print("taken", flush=True)
except Stopped as stopped:
    print(stopped, flush=True)
    raise SystemExit(stopped.exit_code)
"""
    for awaited in ("ready", "taken"):
        with subprocess.Popen(
            [sys.executable, "-c", script],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        ) as parent:
            assert parent.stdout is not None
            while parent.stdout.readline().strip() != awaited:
                pass
            os.killpg(parent.pid, number)
            output, errors = parent.communicate(timeout=60)
        assert parent.returncode == 128 + number, errors
        assert f"stopped by {number.name}" in output
        assert errors == ""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_every_worker_starts_with_stop_signals_blocked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any submission may start a worker, which a signal would kill before it can ignore it."""
    blocked: list[set[signal.Signals]] = []
    start = ProcessPoolExecutor._spawn_process

    def watched(pool: ProcessPoolExecutor) -> None:
        blocked.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))
        start(pool)

    monkeypatch.setattr(ProcessPoolExecutor, "_spawn_process", watched)
    with OrderedMap(slept, [0.0, 0.0, 0.0], workers=2) as results:
        assert list(results) == [0.0, 0.0, 0.0]
    assert blocked == [set(STOP_SIGNALS)] * 2
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    # A zombie counts as ended, since there may be no parent left to reap it.
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_workers_end_with_a_killed_parent() -> None:
    script = """
import multiprocessing, time
from ccop_pretrain.common.parallel import OrderedMap
results = iter(OrderedMap(time.sleep, [0.0] * 32 + [60.0] * 100, workers=2))
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
