"""Map a function over many items on all cores, with ordered results, constant memory and clean shutdown."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import active_children, get_context, parent_process, set_start_method
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, TypeVar

from ccop_hub.errors import UserError
from ccop_hub.stopping import ignore_stop_signals, stop_signals_blocked

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")

_WAITING_PER_WORKER = 16
"""Items queued per worker, so that one slow image does not leave the other workers idle."""

_GRACE = 5.0
"""Seconds for workers to finish their current items when the parent is stopped."""


def one_opencv_thread() -> None:
    """Limit OpenCV to one thread in this process, since there is already one process per core."""
    import cv2

    cv2.setNumThreads(1)


class OrderedMap(Generic[Item, Outcome]):
    """Yields `function(item)` for each item, in the order of `items`.

    `items` is consumed lazily, so that a million images are never queued as a million tasks. Use it as a context
    manager: leaving the block stops the worker processes, within seconds after an error. Terminals and schedulers send
    stop signals to the whole process group; workers ignore them and leave the decision to the parent.

    Args:
        function: picklable function, called in a worker process, or in this one if `workers` is 1.
        items: picklable items.
        workers: number of processes, at least 1.
        initialize: picklable function, called once in each process before its first item.

    Raises:
        UserError: a worker process died (raised while iterating).
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
        self._first = 0  # position of the first one waiting
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
                    yield from self._next()
            while self._waiting:
                yield from self._next()
        except BrokenProcessPool:
            raise UserError(
                "a worker process died, probably out of memory; use fewer --workers or smaller images"
            ) from None

    def finished(self) -> Iterator[tuple[int, Outcome]]:
        """Yield the finished results from the last one taken on, after an interruption, as (position, result).

        Waits a few seconds for items in progress and cancels all others. Positions count the items from 0. The last
        result taken is among them, since an interruption can come before its consumer has received it.
        """
        with stop_signals_blocked():
            for future in self._waiting:
                future.cancel()
            wait([future for future in self._waiting if not future.cancelled()], timeout=_GRACE)
        for position, future in enumerate(self._waiting, start=self._first):
            if future.done() and not future.cancelled() and future.exception() is None:
                yield position, future.result()
        self._waiting.clear()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._pool is None:
            return
        with stop_signals_blocked():
            if kind is not None:
                for process in set(active_children()) - self._others:
                    process.kill()  # workers ignore SIGTERM, and one image can take minutes
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _submit(self, item: Item) -> None:
        # Workers start with stop signals blocked, so that none kills them before they can ignore it; any call may start
        # one. Block them twice, because the pool first starts a helper process, which unblocks them again.
        with stop_signals_blocked():
            if self._pool is None:
                # Forking a process with running threads (OpenCV's, Arrow's) can hang, so spawn.
                self._pool = ProcessPoolExecutor(
                    self._workers,
                    mp_context=get_context("spawn"),
                    initializer=_start_worker,
                    initargs=(self._initialize,),
                )
        with stop_signals_blocked():
            self._waiting.append(self._pool.submit(self._function, item))

    def _next(self) -> Iterator[Outcome]:
        with stop_signals_blocked():
            future = self._waiting[0]
            done: SimpleQueue[Future[Outcome]] = SimpleQueue()
            future.add_done_callback(done.put)
        # Unlike waiting for a future, this can be interrupted at any moment: it takes no lock that would stay taken.
        done.get()
        with stop_signals_blocked():
            outcome = future.result()
        yield outcome
        with stop_signals_blocked():
            self._waiting.popleft()
            self._first += 1


def in_own_process(function: Callable[[Item], Outcome], argument: Item) -> Outcome:
    """Call a picklable function in a new process, which ends with this one, and return its result.

    Raises:
        UserError: the process died.
    """
    with OrderedMap(function, [argument], workers=2, initialize=_default_start_method) as outcomes:
        (outcome,) = outcomes
    return outcome


def _default_start_method() -> None:
    """Let this process start its own as any program does, rather than in the way in which it was started itself."""
    set_start_method(None, force=True)


def _start_worker(initialize: Callable[[], None] | None) -> None:
    ignore_stop_signals()
    # If the parent is killed, it cannot stop its workers, and they would wait for work forever.
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    if initialize is not None:
        initialize()


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        with suppress(OSError):
            parent.join()
        os._exit(1)
