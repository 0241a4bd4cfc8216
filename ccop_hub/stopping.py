"""Graceful shutdown on signals from the terminal (SIGINT, SIGHUP), or a time limit or scheduler (SIGTERM, SIGUSR1)."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

STOP_SIGNALS = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if (number := getattr(signal, name, None)) is not None
)
"""Stop signals: SIGINT from Ctrl-C, SIGTERM from `timeout` and Kubernetes, SIGTERM or SIGUSR1 from SLURM before a time
limit, SIGHUP from a closed terminal. All are sent to every process of a command, including its workers."""

SAME_SIGNAL = 1.0
"""Seconds within which repeated signals count as one, since `timeout` signals its command and then the whole process
group."""

_SIG_DFL = ctypes.c_void_p(0)


_AGAIN = 0.05
"""Seconds until `Stopped` is raised again after a finalizer has swallowed it."""

_raising: set[Any] = set()
"""The handlers of the `stoppable` blocks that are running."""

_raised: list[Stopped] = []
"""What the running `stoppable` blocks have raised."""


class _Deferral:
    """Blocks of the main thread that must not be interrupted.

    Attributes:
        depth: number of nested blocks.
        noted: the signal that arrived in them, or None.
    """

    def __init__(self) -> None:
        self.depth = 0
        self.noted: int | None = None


_deferral = _Deferral()


class Stopped(KeyboardInterrupt):
    """Raised by the first stop signal.

    Attributes:
        signal: number of the signal.
    """

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"stopped by {self.signal.name}")

    @property
    def exit_code(self) -> int:
        """128 plus the signal number, as shells report it."""
        return 128 + self.signal


def interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    """Return the interrupt during whose handling an error was raised, if any.

    The cleanup of a library can fail when it is interrupted: torch's writer when it closes a half-written archive.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__context__
    return cause


@contextmanager
def restoring_interrupts() -> Iterator[None]:
    """Raise an interrupt again where another error has replaced it.

    The error may be the program's own, if cleaning up after the interrupt failed. Compiled code even replaces it
    without a trace: torch reports a storage whose length could not be read as one without a shape. Use it in a
    `stoppable` block.
    """
    try:
        yield
    except Exception as error:
        hidden = interrupt_behind(error) or (_raised[-1] if _raised else None)
        if hidden is not None:
            raise hidden from None
        raise


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `Stopped` on the first stop signal in the block; ignore further ones, so as not to interrupt the cleanup.

    Signals already ignored stay ignored (`nohup`). Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    watched = [number for number in STOP_SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]

    def stop(number: int, frame: FrameType | None) -> None:
        if _deferral.depth:
            _deferral.noted = number
            return
        for each in watched:
            signal.signal(each, signal.SIG_IGN)
        _raised.append(Stopped(number))
        raise _raised[-1]

    def swallowed(unraisable: Any) -> None:
        # Python ignores exceptions in a finalizer, such as that of a data loader: raise this one again soon after.
        if not isinstance(unraisable.exc_value, Stopped):
            hook(unraisable)
            return
        for each in watched:
            signal.signal(each, stop)
        threading.Timer(_AGAIN, _signal_main_thread, (unraisable.exc_value.signal,)).start()

    _raising.add(stop)
    hook, sys.unraisablehook = sys.unraisablehook, swallowed
    before = {number: signal.signal(number, stop) for number in watched}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = hook
        _raising.discard(stop)
        if not _raising:
            _raised.clear()


def _signal_main_thread(number: int) -> None:
    """Signal the main thread, interrupting what it waits for where the system can."""
    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, number)
    else:
        signal.raise_signal(number)


class StopRequest:
    """Notes stop signals instead of raising, so that a loop can finish its step, save its state and stop.

    Use it as a context manager, which raises `Stopped` at its end if the loop did not, or call `start` and `end`. A
    signal that arrives more than a second after the first one ends the process immediately, even if a step hangs. Does
    nothing outside the main thread.

    Attributes:
        signal: the first stop signal received, or None.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._patience: threading.Timer | None = None
        self._changing = threading.Lock()
        self._before: dict[int, Any] = {}

    def start(self) -> None:
        """Note signals from now on; call it again if something else has set handlers meanwhile."""
        if threading.current_thread() is threading.main_thread():
            watched = [number for number in STOP_SIGNALS if signal.getsignal(number) not in (signal.SIG_IGN, None)]
            replaced = {number: signal.signal(number, self._note) for number in watched}
            self._before = self._before or replaced

    def end(self) -> None:
        """Restore the previous signal handlers."""
        with self._changing:
            if self._patience is not None:
                self._patience.cancel()
                self._patience = None
        for number, handler in self._before.items():
            # Once noted, further signals are ignored until the end of the `stoppable` block, as if it had raised.
            ignored = self.signal is not None and handler in _raising
            signal.signal(number, signal.SIG_IGN if ignored else handler)
        self._before = {}

    def __enter__(self) -> StopRequest:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()
        if kind is None and self.signal is not None:
            raise Stopped(self.signal)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let signals raise again in the block, such as a long evaluation between two steps.

        Raises:
            Stopped: a signal was noted before, or arrives in the block.
        """
        self.end()
        if self.signal is not None:
            raise Stopped(self.signal)
        with stoppable():
            yield
        self.start()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is None:
            self.signal = signal.Signals(number)
            # The system discards repeated signals when they arrive; a handler could run much later, after a long step.
            for each in self._before:
                signal.signal(each, signal.SIG_IGN)
            self._patience = threading.Timer(SAME_SIGNAL, self._lose_patience)
            self._patience.daemon = True
            self._patience.start()

    def _lose_patience(self) -> None:
        with self._changing:
            if self._patience is not None:
                for each in self._before:  # `signal.signal` is for the main thread, which may be busy
                    ctypes.pythonapi.PyOS_setsig(each, _SIG_DFL)


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Defer stop signals to the end of the block; processes and threads started inside inherit the blocked signals.

    Use it around code that takes locks or starts processes: `Stopped` raised inside `threading` or `multiprocessing`
    can leave a lock taken or a condition released. Waiting belongs outside.
    """
    main = threading.current_thread() is threading.main_thread()
    masks = hasattr(signal, "pthread_sigmask")
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ()) if masks else set()
    # The mask alone is not enough: a signal that another thread receives is handled in the main thread.
    _deferral.depth += main
    try:
        if masks:
            signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        yield
    finally:
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _deferral.depth -= main
        if main and not _deferral.depth and (noted := _deferral.noted) is not None:
            _deferral.noted = None
            signal.raise_signal(noted)


def ignore_stop_signals() -> None:
    """Ignore stop signals in a worker process: they reach the whole process group, but the parent handles them."""
    _deferral.depth, _deferral.noted = 0, None  # a forked worker is inside the block that started it
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def kill_workers(workers: Collection[BaseProcess]) -> None:
    """Kill worker processes of this one, which ignore stop signals, before it ends."""
    if workers and hasattr(signal, "SIGCHLD"):
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch's handler raises when a worker is killed
    for process in workers:
        if process.pid is not None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))  # joblib's processes have no `kill`
