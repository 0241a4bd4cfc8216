"""The cheapest faults, tried on every change; `make faults` tries all of them."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest

from . import report
from .command import contents, run, unfinished
from .faults import Trial, after
from .material import Material


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    made = Material(tmp_path_factory.mktemp("faults"))
    made.make("scenes")
    return made


def test_a_killed_command_resumes_to_the_same_bytes(material: Material, tmp_path: Path) -> None:
    writer = material.writers["scenes"]
    whole = writer.essence(material.scenes)
    assert len(whole) >= 16
    run(writer.command(tmp_path / "out"), after(random.uniform(0.3, 1.0), signal.SIGKILL))
    assert run(writer.command(tmp_path / "out")).code == 0
    assert writer.essence(tmp_path / "out") == whole


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_group_is_told_in_one_line(
    material: Material, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    command = ["ccop-pretrain", "scenes", "--out", tmp_path / "out", "--images", 2000, "--workers", 1]

    def when_drawing(process: object) -> None:
        until = time.monotonic() + 30
        while not any((tmp_path / "out" / "train2017").glob("*.png")) and time.monotonic() < until:
            time.sleep(0.05)
        after(0.0, number, times=2)(process)

    stopped = run(command, when_drawing, timeout=60)
    assert (stopped.code, stopped.flaw()) == (code, "")
    assert unfinished(tmp_path / "out") == []


def test_wrong_paths_are_refused_in_one_line(material: Material, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    writer = material.writers["scenes"]
    for out in ("file", "loop/out", "n" * 300):
        refused = run(writer.command(tmp_path / out))
        assert refused.refusal() == ""
        assert str(tmp_path) in refused.last
    assert contents(tmp_path).keys() == {"file"}
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.parametrize("kind", ["FIFO", "device"])
def test_what_never_ends_is_not_opened(material: Material, tmp_path: Path, kind: str) -> None:
    for name in ("a.yaml", "a.txt"):
        if kind == "FIFO":
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).symlink_to("/dev/zero")
    out = ["--out", tmp_path / "out"]
    for command in (
        ["ccop-pretrain", "scenes", "--config", tmp_path / "a.yaml", *out],
        ["ccop-pretrain", "proposals", tmp_path / "a.txt", *out],
    ):
        refused = run(command, timeout=60)
        assert refused.refusal() == ""
        assert str(tmp_path / "a.") in refused.last


def test_the_table_counts_what_was_held_lost_and_skipped() -> None:
    trials = [Trial("k", "f", "a"), Trial("k", "f", "b", lost="why"), Trial("k", "f", "c", skipped="no root")]
    facts = {"date": "2026-01-02", "seconds": 3, "machine": "m"}
    section = report.faults_section({**facts, "trials": [trial.document() for trial in trials]})
    assert "| k | f | 2 | 1 | 1 | 1 |" in section
    assert "`b`: why" in section
