"""Data loading with worker processes that stop signals do not reach."""

from __future__ import annotations

import atexit
import functools
import sys
from collections.abc import Iterator
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any
from weakref import WeakSet

import torch
from torch.utils.data import DataLoader, Dataset

from .cores import available_cores
from .errors import UserError
from .limits import DEFAULT_WORKERS
from .stopping import ignore_stop_signals, kill_workers, stop_signals_blocked
from .worker_queue import OUT_OF_SHARED_MEMORY, Undelivered, explain, reporting_context

_started: WeakSet[BaseProcess] = WeakSet()
"""The workers of all readers."""


class Reader(DataLoader[Any]):
    """A `DataLoader` whose workers leave stop signals to the main process, which needs them to finish its step.

    Terminals and schedulers send SIGINT and SIGTERM to the whole process group, and the main process fails if one of
    its workers dies. With workers, a stop signal is deferred while a batch is being fetched. Each worker uses one
    thread of torch.

    Args:
        dataset: the samples.
        **options: as for `DataLoader`, except `worker_init_fn` and `multiprocessing_context`.

    Raises:
        UserError: a worker could not pass on a batch, for example because the shared memory is full (raised while
            iterating).
    """

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        context = reporting_context() if options.get("num_workers") else None
        super().__init__(dataset, worker_init_fn=_start_worker, multiprocessing_context=context, **options)

    def check_worker_number_rationality(self) -> None:
        """Say in one line, once for each number, that there are more workers than cores; torch warns at every pass."""
        if self.num_workers > DEFAULT_WORKERS:
            _compare_with_cores(self.num_workers)

    def __iter__(self) -> Any:
        if not self.num_workers:
            return super().__iter__()
        # Workers start with stop signals blocked, so that none arrives before they are ignored.
        with stop_signals_blocked():
            others = set(active_children())
            batches = super().__iter__()
            _started.update(set(active_children()) - others)
        return _fetched(batches)


@functools.cache
def _compare_with_cores(workers: int) -> None:
    cores = available_cores()
    if workers > cores:
        have = "1 core" if cores == 1 else f"{cores} cores"
        print(
            f"warning: {workers} data-loading processes share {have}; as many --workers as cores are as fast",
            file=sys.stderr,
            flush=True,
        )


def _fetched(batches: Iterator[Any]) -> Iterator[Any]:
    while True:
        with stop_signals_blocked():
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                # torch puts images together in shared memory, before it passes them on.
                if OUT_OF_SHARED_MEMORY not in str(error):
                    raise
                batch = Undelivered(explain(error))
        if isinstance(batch, Undelivered):
            raise UserError(f"a data-loading process could not pass on a batch: {batch.reason}")
        yield batch


@atexit.register
def _kill_remaining_workers() -> None:
    """Keep Python from waiting forever at its exit for workers that ignore the SIGTERM it sends them."""
    kill_workers(set(active_children()) & set(_started))


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    ignore_stop_signals()
