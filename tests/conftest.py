"""Configuration shared by all tests."""

import os
import signal
from pathlib import Path

import pytest

# Compiling the selective search takes half a minute: do it once per checkout, not for every test's own cache.
os.environ.setdefault("NUMBA_CACHE_DIR", str(Path(__file__).parents[1] / ".pytest_cache" / "kernels"))

# `nohup` and a shell's `&` start the tests with these signals ignored, and the programs leave ignored signals alone.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


class FailuresAtOnce:
    """Prints a line for each failure as it happens, for runs that are killed before their summary."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            lines = report.longreprtext.splitlines() or [""]
            errors = [line[1:].strip() for line in lines if line.startswith("E ")] or lines[-1:]
            self._terminal.write_line(f"\nfailed ({report.when}): {report.nodeid}: {errors[0][:300]}")


@pytest.hookimpl(trylast=True)  # the terminal's reporter is there by then
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if terminal is not None:
        config.pluginmanager.register(FailuresAtOnce(terminal))
