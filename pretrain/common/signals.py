"""Signals that stop a run."""

from __future__ import annotations

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""Stop signals: SIGTERM from `timeout` and Kubernetes, SIGTERM or SIGUSR1 from SLURM before a time limit, SIGINT from
Ctrl-C. All are sent to every process of the run, including workers."""


def ignore_stop_signals() -> None:
    """Ignore stop signals in a worker, since the parent needs it to finish the current step."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
