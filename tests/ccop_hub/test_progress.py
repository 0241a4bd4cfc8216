import io

import pytest

from ccop_hub import progress
from ccop_hub.progress import Progress, duration, shows_bars


class Clock:
    """A manually controlled clock."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def test_a_line_at_once_an_early_estimate_and_then_a_line_a_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    with Progress("searching", total=1000, done=400) as shown:
        assert capsys.readouterr().err == "searching: 400 of 1000 images\n"
        for _ in range(150):
            clock.now += 1
            shown.advance()
    assert capsys.readouterr().err.splitlines() == [
        "searching: 410 of 1000 images, about 10 min left",
        "searching: 470 of 1000 images, about 9 min left",
        "searching: 530 of 1000 images, about 8 min left",
        "searching: 550 of 1000 images, about 8 min left",
    ]


def test_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with Progress("searching", total=2) as shown:
        shown.advance()
        shown.advance("loss 3.250")
    assert "2/2" in terminal.getvalue()
    assert "loss 3.250" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seconds", "text"), [(40, "40 s"), (61, "1 min"), (11520, "3 h 12 min"), (86400 * 2 + 3600, "2 d 1 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_notebook_gets_a_bar(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    assert not shows_bars()
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert shows_bars()


def test_tracked_items_are_counted_in_steps(monkeypatch, capsys):
    monkeypatch.setattr(progress, "shows_bars", lambda: False)
    assert list(progress.tracked("abc", "reading", 5, 2, "letters")) == ["a", "b", "c"]
    assert capsys.readouterr().err.splitlines() == ["reading: 2 of 5 letters", "reading: 5 of 5 letters"]
    assert list(progress.tracked("abc", "reading", 3, shown=False)) == ["a", "b", "c"]
    assert capsys.readouterr().err == ""
    with Progress("reading", 6) as shown:
        shown.advance(count=6)
    assert capsys.readouterr().err.splitlines()[-1] == "reading: 6 of 6 images"
