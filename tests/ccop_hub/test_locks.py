import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from ccop_hub import locks
from ccop_hub.errors import UserError
from ccop_hub.locks import discard_abandoned_lock, folder_lock, output_lock, waiting_lock

fcntl = pytest.importorskip("fcntl")

HOLD = """
import os, sys, time
from pathlib import Path
from ccop_hub.locks import folder_lock, output_lock
kind, path = sys.argv[1], Path(sys.argv[2])
with output_lock(path) if kind == "output" else folder_lock(path, shared=kind == "shared"):
    if kind == "forked" and os.fork() == 0:
        print("held", flush=True)
        time.sleep(60)
    if kind != "forked":
        print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path, kind: str) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLD, kind, str(path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_writer_is_refused_by_name_until_the_first_is_gone(tmp_path: Path) -> None:
    with hold(tmp_path, "alone") as process:
        for shared in (False, True):
            with (
                pytest.raises(UserError, match=rf"^{tmp_path} is being written by process {process.pid} on "),
                folder_lock(tmp_path, shared=shared),
            ):
                pass
        process.kill()
    assert (tmp_path / ".lock").exists()  # left by the kill, and no obstacle
    with folder_lock(tmp_path):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    assert list(tmp_path.iterdir()) == []


def test_shared_holders_keep_a_single_one_out(tmp_path: Path) -> None:
    with hold(tmp_path, "shared") as process:
        with folder_lock(tmp_path, shared=True):
            pass
        with pytest.raises(UserError, match="written by other processes"), folder_lock(tmp_path):
            pass
        process.kill()
    with folder_lock(tmp_path), folder_lock(tmp_path, name="another"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_output_is_locked_before_it_exists(tmp_path: Path) -> None:
    out = tmp_path / "a.pth"
    with hold(out, "output") as process:
        with pytest.raises(UserError, match=rf"^{out} is being written by process {process.pid} on "), output_lock(out):
            pass
        with output_lock(tmp_path / "b.pth"):
            pass
        process.kill()
    with output_lock(out):
        pass
    assert list(tmp_path.iterdir()) == []


def test_an_abandoned_lock_is_discarded_and_a_held_one_kept(tmp_path: Path) -> None:
    lock = tmp_path / ".weights.pth.lock"
    lock.write_text("process 1 on elsewhere")  # of a process that was killed
    discard_abandoned_lock(tmp_path / "weights.pth")
    assert not lock.exists()
    with output_lock(tmp_path / "weights.pth"):
        discard_abandoned_lock(tmp_path / "weights.pth")
        assert lock.exists()


def test_a_forked_reader_does_not_keep_the_lock_of_its_killed_parent(tmp_path: Path) -> None:
    with hold(tmp_path, "forked") as process:
        process.kill()
        process.wait()
        os.killpg(process.pid, 0)  # the reader is alive
        with folder_lock(tmp_path):
            pass
        os.killpg(process.pid, signal.SIGKILL)


def _take(folder: Path) -> None:
    with pytest.raises(UserError, match=f"process {os.getppid()} on"), folder_lock(folder):
        pass


def test_a_forked_reader_does_not_release_the_lock_of_its_parent(tmp_path: Path) -> None:
    with folder_lock(tmp_path):
        reader = multiprocessing.get_context("fork").Process(target=_take, args=(tmp_path,))
        reader.start()
        reader.join()
    assert reader.exitcode == 0


def test_waiting_names_whom_it_waits_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, order = tmp_path / "a.lock", []
    taken = threading.Event()

    def first() -> None:
        with waiting_lock(file, "counts"):
            taken.set()
            time.sleep(0.3)
            order.append("first")

    thread = threading.Thread(target=first)
    thread.start()
    taken.wait()
    with waiting_lock(file, "counts too"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    said = capsys.readouterr().err
    assert said.count(f"waiting for process {os.getpid()} on ") == 1
    assert "which counts too" in said
    assert not file.exists()


def test_without_locks_on_the_file_system_nobody_is_locked_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("no locks available")

    monkeypatch.setattr(locks.fcntl, "flock", refuse)
    with folder_lock(tmp_path), folder_lock(tmp_path), waiting_lock(tmp_path / "a", "counts"):
        assert list(tmp_path.iterdir()) == []
    with folder_lock(tmp_path / "absent"):
        pass
