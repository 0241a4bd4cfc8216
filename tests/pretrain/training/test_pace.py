import pytest
from ccop_pretrain.training import pace
from ccop_pretrain.training.pace import Pace


def durations(monkeypatch: pytest.MonkeyPatch, seconds: list[float]) -> tuple[Pace, list[bool]]:
    """Steps that end after these seconds each."""
    clock = iter([sum(seconds[: number + 1]) for number in range(len(seconds))])
    monkeypatch.setattr(pace.time, "perf_counter", lambda: next(clock))
    measured = Pace()
    return measured, [measured.step_ended() for _ in seconds]


def test_the_first_steps_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, ended = durations(monkeypatch, [60, 9, 4, 4, 4, 4, 4])
    assert ended == [False, False, False, False, False, True, False]
    assert measured.seconds == 4


def test_short_steps_are_measured_for_long_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, ended = durations(monkeypatch, [1] * 20)
    assert ended.index(True) == pace.WARMUP_STEPS + pace.MEASURED_SECONDS - 1
    assert measured.seconds == 1


def test_very_long_steps_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    measured, ended = durations(monkeypatch, [200, 200, 200])
    assert ended == [False, False, True]
    assert measured.seconds == 200
