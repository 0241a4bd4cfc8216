"""The verdicts of the soak; `make soak` itself takes half an hour."""

from __future__ import annotations

import random
import signal
import sys
from pathlib import Path

import pytest

from ..faults import report
from ..faults.material import Material, Writer
from ..faults.trials import damaged, leftovers
from . import kills
from .__main__ import results
from .kills import Killed
from .load import Load, Sample, run_load, summary

MIB = 1 << 20


def samples(growth: float = 0.0, files: int = 0, noise: float = 0.0) -> list[Sample]:
    """500 seconds of a command that settles in 100 and then grows by `growth` percent in 350."""
    random_numbers = random.Random(0)
    found = []
    for at in range(501):
        settled = min(at, 100) / 100
        main = 400 * settled * (1 + growth / 100 * max(0, at - 150) / 350) + random_numbers.uniform(-noise, noise)
        found.append(Sample(at, round(main * MIB), (0, 0), 20 + (files if at > 300 else 0) + (at % 50 == 0), 5))
    return found


def test_growth_is_measured_after_the_warm_up() -> None:
    steady = summary("a", samples(noise=8.0))
    assert steady.lost == ""
    assert abs(steady.growth) < 0.3
    assert steady.memory == pytest.approx(400, rel=0.01)
    assert steady.seconds == pytest.approx(350, abs=3)
    growing = summary("a", samples(growth=3.0, noise=8.0))
    assert growing.growth == pytest.approx(3, abs=0.3)
    assert "memory grew" in growing.lost


def test_one_more_open_file_is_a_leak() -> None:
    leaking = summary("a", samples(files=1))
    assert leaking.files == (20, 21, 21, 22)
    assert leaking.lost == "open files grew from 20 to 21"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_load_is_sampled_and_stopped(tmp_path: Path) -> None:
    material = Material(tmp_path)
    scenes = ["ccop-pretrain", "scenes", "--out", tmp_path / "many", "--images", 100_000, "--workers", 2]
    load = run_load("scenes", scenes, 8.0)
    assert "ended with" not in load.lost
    assert load.samples >= 3
    assert load.memory > 10
    assert material.writers.keys() >= {"run", "detection"}


def test_files_that_cannot_be_read_are_half_written(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": ')
    (tmp_path / "b.png").write_bytes(b"\x89PNG\r\n")
    (tmp_path / "c.json").write_text("{}")
    (tmp_path / ".d.png.0123abcd-7-0123abcd.partial").write_bytes(b"")
    (tmp_path / ".lock").touch()
    assert [name.partition(" ")[0] for name in damaged(tmp_path)] == ["a.json", "b.png"]
    assert leftovers(tmp_path) == [".d.png.0123abcd-7-0123abcd.partial", ".lock"]


def test_each_command_has_its_turn_and_the_quick_ones_more_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(kills.time, "monotonic", lambda: now)
    seconds = {"quick": 1.0, "slow": 10.0, "slowest": 20.0}
    writers = [Writer(name, lambda _: [], lambda _: None) for name in seconds]
    turns, taken = kills.Turns(writers, random.Random(0)), list[str]()
    for _ in range(40):
        with turns.take() as (number, writer):
            assert number == len(taken) + 1
            taken.append(writer.name)
            now += seconds[writer.name]
    assert set(taken[:3]) == set(seconds)
    assert taken.count("quick") > 3 * taken.count("slow") > 3 * taken.count("slowest") >= 3
    with turns.take() as (_, first), turns.take() as (_, second), turns.take() as (_, third):
        assert {first.name, second.name, third.name} == set(seconds)


def test_the_section_counts_kills_and_names_failures() -> None:
    killed = [
        Killed("run", kills=[signal.SIGKILL.name, signal.SIGTERM.name]),
        Killed("run", kills=[signal.SIGKILL.name], left=[".x.partial"]),
        Killed("knn", kills=[], lost="other bytes"),
    ]
    load = Load("run", 600.0, 500, 700.0, 0.25, (30, 31, 30, 31), (8, 8, 8, 8))
    document = results(1, 900.0, True, [load], killed)
    assert (document["kills"], document["lost"], document["left behind"]) == (3, 1, 1)
    section = report.soak_section(document)
    assert "| run | 2 | 1 | 0 | 2 |" in section
    assert "| run | 10.0 | 700 | 0.25 | 30-31 | 8 | yes |" in section
    assert "`run`: .x.partial" in section
    assert "`knn`: other bytes" in section
