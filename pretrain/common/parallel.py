"""The same function over many items on all cores, results in the items' order, memory flat."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from ccop_hub.errors import UserError

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

# Enough waiting items that one slow image does not leave the other workers idle.
_WAITING_PER_WORKER = 16


def available_cores() -> int:
    """Cores that this process may run on (which may be fewer than the machine has)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_opencv_thread() -> None:
    """Keep OpenCV to one thread in this process: threads in each of as many processes as cores would only contend."""
    import cv2

    cv2.setNumThreads(1)


def ordered_map(
    function: Callable[[Item], Outcome],
    items: Iterable[Item],
    workers: int,
    initialize: Callable[[], None] | None = None,
) -> Iterator[Outcome]:
    """Yield `function(item)` for each item, in the order of `items` whatever finishes first.

    `items` is read as results are taken: a listing of a million images never waits in memory as a million tasks.

    Args:
        function: picklable; called in a worker process, or in this one for a single worker.
        items: picklable items.
        workers: number of processes, at least 1.
        initialize: picklable; called once in each process before its first item.

    Raises:
        UserError: a worker process died.
    """
    if workers == 1:
        if initialize is not None:
            initialize()
        yield from map(function, items)
        return
    # A fork of a process with running threads (OpenCV's, Arrow's) can hang; a spawned process starts clean.
    context = get_context("spawn")
    pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_start_worker, initargs=(initialize,))
    waiting: deque[Future[Outcome]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= workers * _WAITING_PER_WORKER:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, most likely for want of memory; use fewer --workers or smaller images"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _start_worker(initialize: Callable[[], None] | None) -> None:
    # A parent that is killed outright cannot stop its workers, and they would wait for work for ever.
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    # Ctrl-C reaches every process of the terminal: the parent alone decides, and stops the workers in order.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if initialize is not None:
        initialize()


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
