"""Data loading with worker processes that stop signals do not reach."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .cores import available_cores
from .limits import DEFAULT_WORKERS
from .stopping import ignore_stop_signals, stop_signals_blocked


class Reader(DataLoader[Any]):
    """A `DataLoader` whose workers leave stop signals to the main process, which needs them to finish its step.

    Terminals and schedulers send SIGINT and SIGTERM to the whole process group, and the main process fails if one of
    its workers dies. With workers, a stop signal is deferred while a batch is being fetched. Each worker uses one
    thread of torch.

    Args:
        dataset: the samples.
        **options: as for `DataLoader`, except `worker_init_fn`.
    """

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        super().__init__(dataset, worker_init_fn=_start_worker, **options)

    def check_worker_number_rationality(self) -> None:
        """Say in one line, once for each number, that there are more workers than cores; torch warns at every pass."""
        if self.num_workers > DEFAULT_WORKERS:
            _compare_with_cores(self.num_workers)

    def __iter__(self) -> Any:
        # Workers start with stop signals blocked, so that none arrives before they are ignored.
        with stop_signals_blocked():
            batches = super().__iter__()
        return _fetched(batches) if self.num_workers else batches


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
        yield batch


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    ignore_stop_signals()
