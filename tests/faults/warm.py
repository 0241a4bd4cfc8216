"""Run commands in forks of a process that has imported everything: they start in milliseconds instead of seconds.

As a script, the process that is forked: it reads one JSON request per line and answers with the process id, and with
the exit status when the command has ended.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn

from .command import ENVIRONMENT, TIMEOUT, Outcome, send, survivors

_PROGRAMS = {"ccop-hub": "ccop_hub.cli", "ccop-pretrain": "ccop_pretrain.cli", "ccop-eval": "ccop_eval.cli"}

_IMPORTED = (
    *_PROGRAMS.values(),
    *("ccop_hub.console.parsing", "ccop_hub.formats.conversion", "ccop_hub.publishing.publish", "ccop_hub.reports"),
    *("ccop_pretrain.proposals.run", "ccop_pretrain.scenes.run", "ccop_pretrain.look.inspection"),
    *("ccop_pretrain.training.run", "ccop_eval.frozen.linear", "ccop_eval.frozen.knn", "ccop_eval.frozen.voc_svm"),
    *("ccop_eval.region_probe.run", "ccop_eval.segmentation.run", "ccop_eval.feature_maps", "ccop_eval.results.page"),
    *("ccop_eval.results.compare", "ccop_pretrain.proposals.fast_search.compilation", "docstring_parser"),
    *("cyclopts.exceptions", "rich.progress", "torch.utils.tensorboard", "timm", "torchvision"),
)


@dataclass(frozen=True)
class Disk:
    """A small disk for one command.

    Attributes:
        place: empty folder where it is mounted.
        size: its size, as for tmpfs.
        read_only: whether nothing can be written to it.
        report: file for the names of the temporary files that the command left on the disk.
    """

    place: Path
    size: str
    read_only: bool
    report: Path


class Warm:
    """Runs one command at a time in a fork of a warm process; use it as a context manager.

    Args:
        scratch: folder for the output of commands.
        detection: whether to import Detectron2 too.

    Attributes:
        detection: as given.
    """

    def __init__(self, scratch: Path, detection: bool = False) -> None:
        self._scratch, self.detection = scratch, detection
        words = [sys.executable, "-m", "tests.faults.warm", *(["detection"] if detection else [])]
        self._server = subprocess.Popen(
            words,
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )
        self._answer()  # until the imports are done

    def __enter__(self) -> Warm:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def run(
        self,
        argv: Sequence[object],
        interfere: Callable[[int], None] | None = None,
        timeout: float = TIMEOUT,
        disk: Disk | None = None,
    ) -> Outcome:
        """Run a command; arguments as for `command.run`.

        Args:
            argv: the command line.
            interfere: called with the process id in a separate thread once the process has started.
            timeout: seconds until the whole process group is killed; the exit code is then 124.
            disk: a small disk to mount for the command only; needs root on Linux.
        """
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            request: dict[str, Any] = {"argv": [str(word) for word in argv], "out": str(out), "err": str(err)}
            if disk is not None:
                request["disk"] = [str(disk.place), disk.size, disk.read_only, str(disk.report)]
            begun = time.monotonic()
            assert self._server.stdin is not None
            self._server.stdin.write(json.dumps(request) + "\n")
            self._server.stdin.flush()
            process = int(self._answer())
            expired = threading.Event()

            def expire() -> None:
                expired.set()
                send(process, signal.SIGKILL)

            timer = threading.Timer(timeout, expire)
            threads = [timer, *([threading.Thread(target=interfere, args=(process,))] if interfere else [])]
            for thread in threads:
                thread.start()
            ended = json.loads(self._answer())
            timer.cancel()
            wall = time.monotonic() - begun
            for thread in threads:
                thread.join()
            orphans = survivors(process)
            error = err.read_text(errors="replace") if err.exists() else ""
            output = (out.read_text(errors="replace") if out.exists() else "") + error
        code = 124 if expired.is_set() else ended["code"]
        return Outcome(code, output, error, ended["cpu"], ended["memory"], wall, orphans)

    def _answer(self) -> str:
        assert self._server.stdout is not None
        line = self._server.stdout.readline()
        if not line:
            raise RuntimeError(f"the warm process ended with status {self._server.wait()}")
        return line


def _serve(detection: bool) -> None:
    if detection:
        from ccop_eval.detection.engine import load_engine

        load_engine()
    for name in (*_IMPORTED, *(("ccop_eval.detection.run", "ccop_eval.detection.trainer") if detection else ())):
        importlib.import_module(name)
    # The thread of Arrow's allocator is the only one that survives a fork.
    threads = {path.read_text().strip() for path in Path("/proc/self/task").glob("[0-9]*/comm")}
    if not threads <= {Path("/proc/self/comm").read_text().strip(), "jemalloc_bg_thd"}:
        raise RuntimeError(f"a fork would lose the threads {threads}")
    gc.freeze()
    answers = os.fdopen(os.dup(1), "w")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if not child:
            answers.close()
            _become(request)
        print(child, file=answers, flush=True)
        _, status, usage = os.wait4(child, 0)
        code = os.waitstatus_to_exitcode(status)
        memory = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        ended = {"code": code if code >= 0 else 128 - code, "cpu": usage.ru_utime + usage.ru_stime, "memory": memory}
        print(json.dumps(ended), file=answers, flush=True)


def _become(request: dict[str, Any]) -> NoReturn:
    """Run a program in this process, as its script does, and exit."""
    os.setsid()
    argv, writing = request["argv"], os.O_WRONLY
    files = ((0, os.devnull, os.O_RDONLY), (1, request["out"], writing), (2, request["err"], writing))
    for number, path, flags in files:
        opened = os.open(path, flags | os.O_CREAT, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = Path(os.devnull).open()  # noqa: SIM115
    sys.argv = argv
    if "disk" in request:
        place, size, read_only, report = request["disk"]
        _mount(place, size, read_only)
    try:
        code = importlib.import_module(_PROGRAMS[argv[0]]).main()
    except SystemExit as exit:
        code = exit.code if isinstance(exit.code, int) else 1
    except BaseException as error:
        traceback.print_exc()
        code = 128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    # What Python does at exit, except for freeing the memory of a hundred libraries, which takes seconds.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    if "disk" in request:
        left = [path.name for pattern in ("*.partial", "*.lock") for path in Path(place).rglob(pattern)]
        Path(report).write_text(" ".join(left))
    os._exit(code)


def _mount(place: str, size: str, read_only: bool) -> None:
    """Mount a disk in a mount namespace of this process."""
    import ctypes

    if ctypes.CDLL(None, use_errno=True).unshare(0x00020000):  # CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", place], check=True)
    if read_only:
        subprocess.run(["mount", "-o", "remount,ro", place], check=True)


if __name__ == "__main__":
    _serve("detection" in sys.argv[1:])
