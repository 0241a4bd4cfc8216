import multiprocessing
import os
import signal

import pytest
import torch
from torch.utils.data import Dataset

from ccop_hub.readers import Reader


class Numbers(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, torch.get_num_threads()])


@pytest.mark.skipif(not hasattr(os, "kill") or not hasattr(signal, "SIGUSR1"), reason="signals are POSIX's")
def test_workers_survive_the_signals_that_stop_their_parent() -> None:
    read = iter(Reader(Numbers(), batch_size=2, num_workers=2))
    batches = [next(read)]
    workers = multiprocessing.active_children()
    assert len(workers) == 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        for worker in workers:
            os.kill(worker.pid or 0, number)
    batches += read
    assert torch.cat(batches).tolist() == [[index, 1] for index in range(12)]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
