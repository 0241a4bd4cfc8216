"""Data loading with worker processes that stop signals do not reach."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from .stopping import ignore_stop_signals, stop_signals_blocked


class Reader(DataLoader[Any]):
    """A `DataLoader` whose workers leave stop signals to the main process, which needs them to finish its step.

    Terminals and schedulers send SIGINT and SIGTERM to the whole process group, and the main process fails if one of
    its workers dies. Each worker uses one thread of torch.

    Args:
        dataset: the samples.
        **options: as for `DataLoader`, except `worker_init_fn`.
    """

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        super().__init__(dataset, worker_init_fn=_start_worker, **options)

    def __iter__(self) -> Any:
        # Workers start with stop signals blocked, so that none arrives before they are ignored.
        with stop_signals_blocked():
            return super().__iter__()


def _start_worker(_: int) -> None:
    torch.set_num_threads(1)
    ignore_stop_signals()
