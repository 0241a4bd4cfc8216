"""Run a console program: parse the command line, report errors and return the exit code."""

from __future__ import annotations

import atexit
import contextlib
import errno
import functools
import gc
import io
import os
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

from ..errors import UserError
from ..markup import visible
from ..stopping import Stopped, ignore_stop_signals, kill_workers, restoring_interrupts, stoppable
from ..validation import Validated
from .command import Command, version
from .errors import describe_os_error
from .lost_processes import lost_process
from .output import print_json, reserved_stdout

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from .parsing import Invocation

EXIT_WRONG_INPUT = 2
EXIT_INTERRUPTED = 130
EXIT_UNREAD = 141
"""128 plus the signal number (SIGINT, SIGPIPE), as shells report it."""

_SECONDS_OF_SILENCE = 1.5

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""Errors that only writing causes."""

_EXTRAS = {"ccop-hub": "hub", "ccop-pretrain": "pretrain", "ccop-eval": "eval"}


@dataclass(frozen=True, kw_only=True)
class CompletionSettings(Validated):
    """Print a script that completes commands, flags, choices and paths in a shell.

    For bash: `eval "$(PROGRAM completion bash)"` in ~/.bashrc. For zsh: `PROGRAM completion zsh > DIR/_PROGRAM` for a
    folder DIR of $fpath.

    Args:
        shell: the shell.
    """

    TOPIC: ClassVar[str] = "Settings"

    shell: Literal["bash", "zsh"]


def run_program(program: str, description: str, commands: Sequence[Command], argv: Sequence[str] | None = None) -> int:
    """Parse the command line, run the chosen command and return the exit code.

    A `UserError`, an invalid command line, an operating system error or the death of another process of the command
    prints one line to standard error and returns 2.
    A missing optional package prints the extra to install. An interrupt returns 130, another stop signal 128 plus its
    number, and a closed pipe (`... | head`) 141. Any other exception is a bug in the program and shows its traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    # Python sets a stream to None if it is closed at startup (`>&-`, some service managers).
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # not all file names are UTF-8, nor all terminals Unicode
    # timm and torchvision still script functions on import; users cannot do anything about it.
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
    threading.excepthook = lambda failure: _report_thread(program, failure)
    _ignore_stop_signals_at_exit()
    others = _workers()
    # Around the cleanup as well: the second of two signals must not interrupt it.
    with stoppable():
        try:
            return _exit_code(program, description, commands, words)
        finally:
            _end_workers(others)


def _exit_code(program: str, description: str, commands: Sequence[Command], words: list[str]) -> int:
    try:
        with restoring_interrupts():
            code = _run(program, description, commands, words)
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"{program}: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get(program)
        if extra is None or (error.name or "").startswith("ccop_"):
            raise
        print(f"{program}: needs the package {error.name!r}: pip install 'ccop-hub[{extra}]'", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except KeyboardInterrupt as interrupt:
        return _interrupted(program, interrupt)
    except BrokenPipeError:
        # Discard what is left in the buffer; otherwise Python reports a broken pipe at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_UNREAD
    except OSError as error:
        print(f"{program}: {visible(describe_os_error(error))}", file=sys.stderr)
        return EXIT_WRONG_INPUT
    except RuntimeError as error:
        line = lost_process(error)
        if line is None:
            raise
        print(f"{program}: {line}", file=sys.stderr)
        return EXIT_WRONG_INPUT


def _interrupted(program: str, interrupt: KeyboardInterrupt) -> int:
    if isinstance(interrupt, Stopped):
        print(f"{program}: {interrupt}", file=sys.stderr)
        return interrupt.exit_code
    print(f"{program}: interrupted", file=sys.stderr)
    return EXIT_INTERRUPTED


@functools.cache
def _ignore_stop_signals_at_exit() -> None:
    """Keep stop signals from interrupting Python's own cleanup, which would show a traceback."""
    atexit.register(ignore_stop_signals)


def _workers() -> set[BaseProcess]:
    """Return the running worker processes; there are none before `multiprocessing`, which the help does without."""
    loaded = sys.modules.get("multiprocessing")
    return set() if loaded is None else set(loaded.active_children())


def _end_workers(others: set[BaseProcess]) -> None:
    """End the worker processes of an interrupted command; they ignore the SIGTERM that Python sends at exit."""
    if _workers() <= others:
        return
    gc.collect()  # ends those whose data loader is no longer used
    kill_workers(_workers() - others)


def _report_thread(program: str, failure: threading.ExceptHookArgs) -> None:
    """Report an operating system error in a background thread, such as TensorBoard's writer, in one line."""
    if isinstance(failure.exc_value, OSError):
        print(f"{program}: {describe_os_error(failure.exc_value)}", file=sys.stderr)
    else:
        threading.__excepthook__(failure)


def _run(program: str, description: str, commands: Sequence[Command], words: list[str]) -> int:
    if words == ["--version"]:
        print(f"{program} {version()}")
        return 0
    from .parsing import completion_script, parse

    completion = Command(
        "completion",
        "Print a script that completes commands and flags in bash or zsh.",
        CompletionSettings,
        lambda settings: print(completion_script(program, description, commands, settings.shell)),
        ("shell",),
    )
    invocation = parse(program, description, [*commands, completion], words)
    if invocation is None:
        return 0
    command = invocation.command
    with _announced(f"{program} {command.name}: starting ..." if command.takes_long else ""):
        return _carry_out(invocation)


@contextlib.contextmanager
def _announced(line: str) -> Iterator[None]:
    """Print a line if the block takes more than a moment, since importing torch alone takes seconds."""
    if not line or "torch" in sys.modules:
        yield
        return
    timer = threading.Timer(_SECONDS_OF_SILENCE, lambda: print(line, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _carry_out(invocation: Invocation) -> int:
    import logging  # the help does without

    logging.raiseExceptions = False  # a log on a full disk must not print a traceback for each message
    try:
        return _carried_out(invocation)
    except OSError as error:
        out = getattr(invocation.settings, "out", None)
        if error.filename is None and error.errno in _OF_THE_DISK and isinstance(out, Path):
            error.filename = str(out)  # a library, such as a logger, wrote a file of its own there
        raise


def _carried_out(invocation: Invocation) -> int:
    command, settings = invocation.command, invocation.settings
    if invocation.json and command.document is not None:
        with reserved_stdout():
            outcome = command.run(settings)
            document = command.document(outcome, settings)
        if document is not None:
            print_json(document)
        return command.code(outcome)
    outcome = command.run(settings)
    if command.show is not None:
        return command.show(outcome, settings) or 0
    return outcome if isinstance(outcome, int) else 0
