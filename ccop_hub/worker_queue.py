"""The queue in which data-loading processes pass on batches, and the report in place of one that it cannot take."""

from __future__ import annotations

import errno
import multiprocessing
import tempfile
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue
from typing import Any

from .errors import one_line

OUT_OF_SHARED_MEMORY = "unable to allocate shared memory"
"""Part of torch's message (torch 2.11 to 2.14, MapAllocator.cpp)."""


@dataclass(frozen=True)
class Undelivered:
    """Takes the place of a batch that a data-loading process could not pass on.

    Attributes:
        reason: why, and what to do.
    """

    reason: str


class ReportingQueue(Queue):  # type: ignore[type-arg]  # not generic before Python 3.12 at run time
    """A queue of (index, batch) that reports what it cannot pickle.

    Pickling a tensor needs shared memory, a file descriptor and a socket in the temporary folder. A queue of Python
    prints a traceback and drops the item if one of them is lacking, and torch's `DataLoader` then waits forever.
    """

    def _on_queue_feeder_error(self, e: Exception, obj: Any) -> None:
        # Python calls this method in the thread that pickles, for `concurrent.futures` to override it as well.
        index, _ = obj
        self.put((index, Undelivered(explain(e))))


def reporting_context() -> BaseContext:
    """Return Python's default way to start processes, with `ReportingQueue` as its queue."""
    context = multiprocessing.get_context()

    class ReportingContext(type(context)):  # type: ignore[misc]  # the class depends on the operating system
        def Queue(self, maxsize: int = 0) -> ReportingQueue:  # noqa: N802 - the name is Python's
            return ReportingQueue(maxsize, ctx=context)

    return ReportingContext()


def explain(error: Exception) -> str:
    """Return what a data-loading process lacked to pass on a batch, and what to do."""
    said = one_line((str(error).splitlines() or [""])[-1])
    if OUT_OF_SHARED_MEMORY in said:
        return f"{said}; enlarge /dev/shm (in Docker, with --shm-size 2g), or use fewer --workers, or --workers 0"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return f"{said}; free some space, or set TMPDIR to another folder than {tempfile.gettempdir()}"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return f"{said}; raise the limit of open files with `ulimit -n`, or use --workers 0"
    return f"{said}; use --workers 0"
