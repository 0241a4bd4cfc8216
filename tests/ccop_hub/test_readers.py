import multiprocessing
import os
import signal

import pytest
import torch
from torch.utils.data import Dataset

from ccop_hub import readers
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


def test_more_workers_than_cores_are_one_line(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    readers._compare_with_cores.cache_clear()
    for workers in (2, 5, 5):
        Reader(Numbers(), batch_size=2, num_workers=workers)
    readers._compare_with_cores.cache_clear()
    assert not recwarn.list
    (line,) = capsys.readouterr().err.splitlines()
    assert "5 data-loading processes" in line
    assert "1 core;" in line
    assert "--workers" in line
