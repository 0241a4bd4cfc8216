"""Signals that ask a run to stop."""

from __future__ import annotations

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What stops a run: `timeout` and Kubernetes send SIGTERM, SLURM SIGTERM or SIGUSR1 before a time limit, Ctrl-C SIGINT.
All of them signal every process of the run, helpers included."""


def ignore_stop_signals() -> None:
    """Leave it to the parent process when to stop: it still needs this one to finish its step."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
