from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import BrokenExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch.distributed

from ccop_hub import __version__
from ccop_hub.console import Command, program, run_program
from ccop_hub.errors import UserError
from ccop_hub.stopping import Stopped
from ccop_hub.validation import Validated

from .conftest import Lookup, Program


def _failing(error: BaseException) -> list[Command]:
    def run(_: Lookup) -> None:
        raise error

    return [Command("look", "Look.", Lookup, run, ("name",))]


def test_user_error_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program("painter", "", _failing(UserError("no paint;\n   buy some")), ["look"]) == 2
    assert capsys.readouterr().err == "painter: no paint; buy some\n"


def test_missing_package_names_the_extra(capsys: pytest.CaptureFixture[str]) -> None:
    missing = ModuleNotFoundError("No module named 'fvcore'", name="fvcore")
    assert run_program("ccop-hub", "", _failing(missing), ["look"]) == 2
    assert capsys.readouterr().err == "ccop-hub: needs the package 'fvcore': pip install 'ccop-hub[hub]'\n"


def test_our_own_defects_keep_their_traceback() -> None:
    with pytest.raises(ModuleNotFoundError):
        run_program("ccop-hub", "", _failing(ModuleNotFoundError("", name="ccop_hub.colour")), ["look"])
    for error in (ZeroDivisionError(), RuntimeError("mat1 and mat2 shapes cannot be multiplied")):
        with pytest.raises(type(error)):
            run_program("ccop-hub", "", _failing(error), ["look"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            RuntimeError("DataLoader worker (pid 21337) is killed by signal: Killed. "),
            "a worker process died (killed by signal: Killed), probably out of memory; use fewer --workers or smaller "
            "images",
        ),
        (
            RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"),
            "a worker process died (exited unexpectedly), probably out of memory; use fewer --workers or smaller "
            "images",
        ),
        (BrokenExecutor("oh"), "a worker process died, probably out of memory; use fewer --workers or smaller images"),
        (
            RuntimeError("[/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:29415. This is ..."),
            "the other processes of this run cannot be reached, see what they printed (Connection closed by peer "
            "[127.0.0.1]:29415. This is ...)",
        ),
        (
            torch.distributed.DistNetworkError("failed to recv, got 0 bytes"),
            "the other processes of this run cannot be reached, see what they printed (failed to recv, got 0 bytes)",
        ),
    ],
)
def test_the_death_of_another_process_is_one_line(
    error: RuntimeError, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_program("painter", "", _failing(error), ["look"]) == 2
    assert capsys.readouterr().err == f"painter: {said}\n"


def test_interrupt_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program("painter", "", _failing(KeyboardInterrupt()), ["look"]) == 130
    assert capsys.readouterr().err == "painter: interrupted\n"
    assert run_program("painter", "", [Command("look", "Look.", Lookup, lambda _: 1)], ["look"]) == 1


@dataclass(frozen=True, kw_only=True)
class Drawing(Validated):
    """Draw.

    Args:
        out: folder.
    """

    out: Path


def test_a_full_disk_under_a_library_names_the_output(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def run(_: Drawing) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    assert run_program("painter", "", [Command("draw", "Draw.", Drawing, run)], ["draw", f"--out={tmp_path}"]) == 2
    assert capsys.readouterr().err.startswith(f"painter: {tmp_path}: no space left on the disk")


def test_an_interrupt_stays_one_if_the_cleanup_after_it_fails(capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: Lookup) -> None:
        try:
            raise Stopped(signal.SIGTERM)
        finally:
            threading.RLock().release()

    assert run_program("painter", "", [Command("look", "Look.", Lookup, run)], ["look"]) == 143
    assert capsys.readouterr().err == "painter: stopped by SIGTERM\n"


def test_an_interrupt_stays_one_if_the_program_reports_the_failed_cleanup(capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: Lookup) -> None:
        try:
            try:
                raise Stopped(signal.SIGTERM)
            finally:
                os.close(-1)
        except OSError:
            raise UserError("cannot read the file") from None

    assert run_program("painter", "", [Command("look", "Look.", Lookup, run)], ["look"]) == 143
    assert capsys.readouterr().err == "painter: stopped by SIGTERM\n"


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_an_interrupt_that_compiled_code_replaces_by_its_own_error_stays_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(_: Lookup) -> None:
        with contextlib.suppress(Stopped):
            signal.raise_signal(signal.SIGTERM)
        raise UserError("the file is damaged")

    assert run_program("painter", "", [Command("look", "Look.", Lookup, run)], ["look"]) == 143
    assert capsys.readouterr().err == "painter: stopped by SIGTERM\n"
    assert run_program("painter", "", _failing(UserError("the file is damaged")), ["look"]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_workers_of_any_library_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as worker:
        # joblib's processes have a `pid`, but no `kill`.
        process = type("Process", (), {"pid": worker.pid})()
        found = iter([set(), {process}, {process}])
        monkeypatch.setattr(program, "_workers", lambda: next(found))
        assert run_program("painter", "", [Command("look", "Look.", Lookup, lambda _: None)], ["look"]) == 0
        assert worker.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_names_that_the_terminal_cannot_show_are_escaped(encoding: str) -> None:
    script = """
from dataclasses import dataclass
from ccop_hub.console import Command, program, run_program
@dataclass(frozen=True)
class Nothing:
    \"\"\"Nothing.\"\"\"
look = Command("look", "Look.", Nothing, lambda _: print("caf\\udce9"))
raise SystemExit(run_program("painter", "", [look], ["look"]))
"""
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"caf\\udce9", b"")


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.EACCES, "permission denied"),
        (errno.EPERM, "not permitted"),
        (errno.EROFS, "read-only"),
        (errno.ENOENT, "no such file"),
        (errno.ENOTDIR, "is a file, not a folder"),
        (errno.EISDIR, "is a folder, not a file"),
        (errno.EEXIST, "exists already"),
        (errno.ENAMETOOLONG, "too long"),
        (errno.ELOOP, "symbolic links"),
        (errno.ENOSPC, "no space left"),
        (errno.EDQUOT, "quota"),
        (errno.EMFILE, "too many open files"),
        (errno.EIO, "input/output error"),
    ],
)
def test_errors_of_the_operating_system_name_the_path(
    capsys: pytest.CaptureFixture[str], number: int, said: str
) -> None:
    error = OSError(number, os.strerror(number), "run/.model.pth.4711-0123abcd.partial", None, "run/model.pth")
    for failed in (error, OSError(number, os.strerror(number), "run/.model.pth.4711-0123abcd.partial")):
        assert run_program("painter", "", _failing(failed), ["look"]) == 2
        err = capsys.readouterr().err
        assert err.startswith("painter: run/model.pth: ")
        assert said in err.lower()
        assert "; " in err
        assert "partial" not in err
        assert err.count("\n") == 1


def test_an_error_without_a_path_is_one_line_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program("painter", "", _failing(ConnectionResetError(104, "Connection reset by peer")), ["look"]) == 2
    assert capsys.readouterr().err.startswith("painter: Connection reset by peer; ")


def test_a_real_failure_to_write(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    command = Command("look", "Look.", Lookup, lambda settings: Path(settings.name).mkdir(parents=True), ("name",))
    assert run_program("painter", "", [command], ["look", str(tmp_path / "file" / "folder")]) == 2
    assert f"{tmp_path / 'file' / 'folder'}: a part of the path is a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "is_system"), [(OSError(errno.ENOSPC, "full", "/a/events"), True), (ValueError("bug"), False)]
)
def test_errors_of_the_system_in_a_background_thread_are_one_line(
    error: Exception, is_system: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)  # put back behind the test

    def fail() -> None:
        raise error

    def run(_: Lookup) -> None:
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()

    assert run_program("ccop-hub", "", [Command("look", "Look.", Lookup, run, ("name",))], ["look"]) == 0
    printed = capsys.readouterr().err
    assert ("Traceback" in printed) != is_system
    assert ("/a/events: " in printed) == (printed.count("\n") == 1) == is_system


def test_a_reader_that_has_had_enough_is_no_defect() -> None:
    script = (
        "import sys, dataclasses; from ccop_hub.console import *; from ccop_hub.validation import Validated\n"
        "@dataclasses.dataclass(frozen=True)\nclass Settings(Validated): 'Talk.'\n"
        "command = Command('talk', 'Talk.', Settings, lambda _: [print(line) for line in range(100_000)] and 0)\n"
        "sys.exit(run_program('talker', '', [command], ['talk']))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as talker:
        assert talker.stdout is not None
        assert talker.stdout.readline() == b"0\n"
        talker.stdout.close()
        assert talker.stderr is not None
        assert talker.stderr.read() == b""
    assert talker.returncode == 141


def test_a_closed_standard_output_is_no_defect() -> None:
    script = (
        "import sys, dataclasses; from ccop_hub.console import *; from ccop_hub.validation import Validated\n"
        "@dataclasses.dataclass(frozen=True)\nclass Settings(Validated): 'Talk.'\n"
        "command = Command('talk', 'Talk.', Settings, lambda _: print('heard by nobody'))\n"
        "sys.exit(run_program('talker', '', [command], ['talk']))"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_version(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert program("--version") == 0
    assert capsys.readouterr().out == f"painter {__version__}\n"


def test_json_is_all_that_stands_on_standard_output(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    assert program("look", "this") == 0
    assert capsys.readouterr().out == "looking\ntable of this\n"
    assert program("look", "this", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"name": "this"}
    assert err == "looking\n"


def test_what_other_processes_print_does_not_get_into_the_json() -> None:
    script = (
        "import os, sys, dataclasses; from ccop_hub.console import *; from ccop_hub.validation import Validated\n"
        "@dataclasses.dataclass(frozen=True)\nclass Settings(Validated): 'Talk.'\n"
        "command = Command('talk', 'Talk.', Settings, lambda _: os.system('echo noise'), document=lambda *_: [1])\n"
        "sys.exit(run_program('talker', '', [command], ['talk', '--json']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [1]
    assert done.stderr == "noise\n"
