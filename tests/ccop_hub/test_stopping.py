import signal
import subprocess
import sys
import threading
import time

import pytest

from ccop_hub import stopping
from ccop_hub.stopping import STOP_SIGNALS, Stopped, StopRequest, stop_signals_blocked, stoppable

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals are POSIX's")


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_the_first_signal_raises_and_further_ones_do_not_interrupt_the_cleanup(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in STOP_SIGNALS}
    cleaned = []

    def stop() -> None:
        with stoppable():
            try:
                signal.raise_signal(number)
            finally:
                signal.raise_signal(signal.SIGTERM)
                cleaned.append(True)

    with pytest.raises(Stopped) as stopped:
        stop()
    assert (stopped.value.signal, stopped.value.exit_code, cleaned) == (number, 128 + number, [True])
    assert {each: signal.getsignal(each) for each in STOP_SIGNALS} == before


@pytest.mark.parametrize("by_another_thread", [False, True])
def test_a_signal_waits_for_the_end_of_a_block_wherever_it_arrives(by_another_thread: bool) -> None:
    steps = []
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()

    def stop() -> None:
        with stoppable():
            with stop_signals_blocked():
                with stop_signals_blocked():
                    if by_another_thread:
                        signal.pthread_kill(thread.ident or 0, signal.SIGTERM)
                    else:
                        signal.raise_signal(signal.SIGTERM)
                    time.sleep(0.05)
                    steps.append("inner")
                steps.append("outer")
            steps.append("after")

    try:
        with pytest.raises(Stopped) as stopped:
            stop()
    finally:
        ended.set()
        thread.join()
    assert (stopped.value.signal, steps) == (signal.SIGTERM, ["inner", "outer"])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    with stoppable(), stop_signals_blocked():
        steps.append("once")
    assert steps[-1] == "once"


class Finalized:
    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_a_finalizer_does_not_swallow_the_signal(capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> None:
        with stoppable():
            Finalized()
            time.sleep(30)
            pytest.fail("the sleep was not interrupted")

    with pytest.raises(Stopped) as stopped:
        stop()
    assert stopped.value.signal == signal.SIGINT
    assert "Exception ignored" not in capsys.readouterr().err


def test_a_second_signal_does_not_interrupt_the_cleanup_after_a_request() -> None:
    cleaned = []

    def stop() -> None:
        with stoppable():
            try:
                with StopRequest() as request:
                    signal.raise_signal(signal.SIGTERM)
                    assert request.signal is not None
            finally:
                signal.raise_signal(signal.SIGTERM)
                cleaned.append(True)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped):
        stop()
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stoppable(), StopRequest() as request:
            signal.raise_signal(signal.SIGHUP)
        assert request.signal is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_request_lets_the_step_finish() -> None:
    steps = []

    def loop() -> None:
        with stoppable(), StopRequest() as request:
            for step in range(5):
                if step == 2:
                    signal.raise_signal(signal.SIGTERM)
                    signal.raise_signal(signal.SIGINT)  # the same request, sent to the group as well
                steps.append(step)
                if request.signal is not None:
                    raise Stopped(request.signal)

    with pytest.raises(Stopped) as stopped:
        loop()
    assert steps == [0, 1, 2]
    assert stopped.value.signal == signal.SIGTERM


def test_a_request_after_the_last_step_is_not_lost() -> None:
    def finish() -> None:
        with stoppable(), StopRequest():
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Stopped):
        finish()


def test_a_pause_raises_at_once() -> None:
    done = []

    def evaluate(before: bool) -> None:
        with stoppable(), StopRequest() as request:
            if before:
                signal.raise_signal(signal.SIGUSR1)
            with request.paused():
                done.append("begun")
                signal.raise_signal(signal.SIGINT)
                done.append("ended")

    with pytest.raises(Stopped) as stopped:
        evaluate(before=True)
    assert (stopped.value.signal, done) == (signal.SIGUSR1, [])
    with pytest.raises(Stopped) as stopped:
        evaluate(before=False)
    assert (stopped.value.signal, done) == (signal.SIGINT, ["begun"])


def test_a_second_signal_after_a_while_ends_the_process() -> None:
    script = """
import os, signal, time
from ccop_hub import stopping
stopping.SAME_SIGNAL = 0.2
request = stopping.StopRequest()
request.start()
for _ in range(3):
    os.kill(os.getpid(), signal.SIGTERM)
print(request.signal.name, flush=True)
time.sleep(1)
os.kill(os.getpid(), signal.SIGTERM)
time.sleep(30)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "SIGTERM\n"), done.stderr


def test_the_handlers_are_restored_before_and_after_the_second_signal_would_end_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(stopping, "SAME_SIGNAL", 0.05)
    seen: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _: seen.append(number))
    try:
        for waited in (0.0, 0.3):
            request = StopRequest()
            request.start()
            signal.raise_signal(signal.SIGUSR1)
            assert request.signal == signal.SIGUSR1
            time.sleep(waited)
            request.end()
            time.sleep(0.1)
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1] * 2
