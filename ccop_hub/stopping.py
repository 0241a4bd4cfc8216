"""Graceful shutdown on signals from the terminal (SIGINT, SIGHUP), or a time limit or scheduler (SIGTERM)."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = tuple(
    number for name in ("SIGINT", "SIGTERM", "SIGHUP") if (number := getattr(signal, name, None)) is not None
)


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
        for each in watched:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    before = {number: signal.signal(number, stop) for number in watched}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Defer stop signals to the end of the block; processes started inside inherit the blocked signals."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore_stop_signals() -> None:
    """Ignore stop signals in a worker process: they reach the whole process group, but the parent handles them."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
