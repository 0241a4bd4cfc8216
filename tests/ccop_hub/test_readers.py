import errno
import multiprocessing
import os
import signal
import subprocess
import sys

import pytest
import torch
from torch.utils.data import Dataset

from ccop_hub import readers
from ccop_hub.errors import UserError
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


class Images(Dataset[torch.Tensor]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.zeros(3, 64, 64)


FULL = {
    "temporary folder": (OSError(errno.ENOSPC, "No space left on device", "pymp-x"), "No space left", "TMPDIR"),
    "open files": (OSError(errno.EMFILE, "Too many open files"), "Too many open files", "ulimit -n"),
    "shared memory": (
        RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)"),
        "No space left",
        "--shm-size",
    ),
    "other": (RuntimeError("no such device"), "no such device", "--workers 0"),
}


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="the workers must inherit the fault")
@pytest.mark.parametrize("batch_size", [2, None])
@pytest.mark.parametrize("lacking", FULL)
def test_a_batch_that_cannot_be_passed_on_is_an_error(
    lacking: str, batch_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    error, said, remedy = FULL[lacking]

    def share(_: object) -> None:
        raise error

    monkeypatch.setattr(torch.UntypedStorage, "_share_fd_cpu_", share)
    # Without it, torch collates into shared memory that is there already.
    monkeypatch.setattr(torch.UntypedStorage, "is_shared", lambda _: False)
    with pytest.raises(UserError, match=f"could not pass on a batch: .*{said}.*{remedy}"):
        list(Reader(Images(), batch_size=batch_size, num_workers=2, collate_fn=list if batch_size else None))


@pytest.mark.skipif(multiprocessing.get_start_method() != "fork", reason="the workers must inherit the fault")
def test_torch_out_of_shared_memory_for_a_batch_is_the_same_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def new(*_: object, **__: object) -> None:
        raise FULL["shared memory"][0]

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", new)
    with pytest.raises(UserError, match=r"could not pass on a batch: .*No space left.*--shm-size"):
        list(Reader(Images(), batch_size=2, num_workers=2))


PROGRAM = """
import torch
from torch.utils.data import Dataset
from ccop_hub.readers import Reader

class Broken(Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        if index == 20:
            raise ValueError("a defect")
        return torch.zeros(3)

list(Reader(Broken(), batch_size=8, num_workers=2))
"""


def test_a_program_that_ends_with_an_error_does_not_wait_for_its_workers() -> None:
    command = [sys.executable, "-c", PROGRAM]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert ended.returncode == 1
    assert "ValueError: a defect" in ended.stderr
