from pathlib import Path

import pytest
import torch
from ccop_eval.detection import processes
from ccop_eval.detection.processes import start
from ccop_eval.detection.run import work
from ccop_eval.settings import DetectionSettings
from torch.multiprocessing.spawn import ProcessRaisedException

from ccop_hub.errors import UserError

ONE = DetectionSettings(weights="random", data=Path("nowhere"), out=Path("nowhere"))
TWO = DetectionSettings(weights="random", data=Path("nowhere"), out=Path("nowhere"), devices=2)


def test_one_process_is_this_one() -> None:
    seen: list[str] = []
    processes.start(ONE, seen.append, "here")
    assert seen == ["here"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_a_new_process_can_import_the_engine() -> None:
    """v0.6 then asserts a GPU; official main makes the plan, for weights without an architecture.

    Uses a group of one, since each new process takes seconds.
    """
    url = f"tcp://127.0.0.1:{processes._free_port()}"
    with pytest.raises(ProcessRaisedException, match=r"cuda is not available|random weights need an architecture"):
        processes.start_processes(processes._prepared, (work, 1, 1, 0, url, (TWO, None)), 1, start_method="spawn")


def test_a_users_mistake_in_another_process_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    told = "-- Process 0 terminated:\nTraceback (most recent call last):\nccop_hub.errors.UserError: diverged; do this"

    def spawn(*_: object, **__: object) -> None:
        raise ProcessRaisedException(told, 0, 1)

    monkeypatch.setattr(processes, "start_processes", spawn)
    with pytest.raises(UserError, match=r"^diverged; do this$"):
        start(TWO, work, TWO, None)


def test_another_processs_defect_shows_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def spawn(*_: object, **__: object) -> None:
        raise ProcessRaisedException("-- Process 0 terminated:\nTraceback:\nKeyError: 'stem'", 0, 1)

    monkeypatch.setattr(processes, "start_processes", spawn)
    with pytest.raises(ProcessRaisedException, match="KeyError: 'stem'"):
        start(TWO, work, TWO, None)
