"""The same function over many items on all cores: results in the items' order, memory flat, stopped in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import active_children, get_context, parent_process
from types import TracebackType
from typing import Generic, TypeVar

from ccop_hub.errors import UserError
from ccop_hub.stopping import ignore_stop_signals, stop_signals_blocked

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_WAITING_PER_WORKER = 16
"""Items handed out per worker: enough that one slow image does not leave the other workers idle."""

_GRACE = 5.0
"""Seconds that workers have to finish their current items when the parent is stopped."""


def available_cores() -> int:
    """Cores that this process may run on, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_opencv_thread() -> None:
    """Keep OpenCV to one thread in this process: with one process per core, more threads only compete."""
    import cv2

    cv2.setNumThreads(1)


class OrderedMap(Generic[Item, Outcome]):
    """Iterates over `function(item)` for each item, in the order of `items`, whichever finishes first.

    `items` is read as results are taken: a listing of a million images never waits in memory as a million tasks. Use it
    as a context manager: leaving the block stops the worker processes, after an error within seconds. Workers ignore
    stop signals, which a terminal or a scheduler sends to the whole process group; only the parent decides.

    Args:
        function: picklable; called in a worker process, or in this one if there is a single worker.
        items: picklable items.
        workers: number of processes, at least 1.
        initialize: picklable; called once in each process before its first item.

    Raises:
        UserError: while iterating, if a worker process died.
    """

    def __init__(
        self,
        function: Callable[[Item], Outcome],
        items: Iterable[Item],
        workers: int,
        initialize: Callable[[], None] | None = None,
    ) -> None:
        self._function = function
        self._items = iter(items)
        self._workers = workers
        self._initialize = initialize
        self._waiting: deque[Future[Outcome]] = deque()
        self._pool: ProcessPoolExecutor | None = None
        self._others = set(active_children())

    def __enter__(self) -> OrderedMap[Item, Outcome]:
        return self

    def __iter__(self) -> Iterator[Outcome]:
        if self._workers == 1:
            if self._initialize is not None:
                self._initialize()
            yield from map(self._function, self._items)
            return
        try:
            for item in self._items:
                self._submit(item)
                if len(self._waiting) >= self._workers * _WAITING_PER_WORKER:
                    yield self._take()
            while self._waiting:
                yield self._take()
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, probably out of memory; use fewer --workers or smaller images"
            ) from None

    def finished(self) -> Iterator[tuple[int, Outcome]]:
        """After an interruption: results not yet taken whose items are done, with their distance from the last taken.

        Items that the workers have begun are waited for, for a few seconds; all others are given up. A distance of 0 is
        the item after the last taken one.
        """
        for future in self._waiting:
            future.cancel()
        wait([future for future in self._waiting if not future.cancelled()], timeout=_GRACE)
        for distance, future in enumerate(self._waiting):
            if future.done() and not future.cancelled() and future.exception() is None:
                yield distance, future.result()
        self._waiting.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        if kind is not None:
            for process in set(active_children()) - self._others:
                process.kill()  # they ignore SIGTERM, and an image may take minutes
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, item: Item) -> None:
        if self._pool is not None:
            self._waiting.append(self._pool.submit(self._function, item))
            return
        # A fork of a process with running threads (OpenCV's, Arrow's) can hang; a spawned process starts clean. It
        # starts with stop signals blocked, so that none ends it before it can ignore them. The pool first starts a
        # helper process, whose start unblocks them again: hence twice.
        with stop_signals_blocked():
            self._pool = ProcessPoolExecutor(
                self._workers,
                mp_context=get_context("spawn"),
                initializer=_start_worker,
                initargs=(self._initialize,),
            )
        with stop_signals_blocked():
            self._waiting.append(self._pool.submit(self._function, item))

    def _take(self) -> Outcome:
        outcome = self._waiting[0].result()
        self._waiting.popleft()
        return outcome


def _start_worker(initialize: Callable[[], None] | None) -> None:
    ignore_stop_signals()
    # A parent that is killed cannot stop its workers, which would wait for work forever.
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if initialize is not None:
        initialize()


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        with suppress(OSError):
            parent.join()
        os._exit(1)
