from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from ccop_hub.console import Command, run_program
from ccop_hub.console.config import read_config
from ccop_hub.errors import UserError
from ccop_hub.validation import PositiveInt, Validated


@dataclass(frozen=True)
class Training(Validated):
    """Train.

    Args:
        backbone: a network.
        precision: arithmetic.
        devices: how many.
        save_every: steps.
    """

    backbone: str = "resnet50"
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    devices: PositiveInt = 1
    save_every: PositiveInt = 100


@pytest.mark.parametrize(
    ("words", "expected", "notes"),
    [
        (["--arch", "resnet18"], Training("resnet18"), ["--arch is now --backbone"]),
        (["--arch=resnet18"], Training("resnet18"), ["--arch is now --backbone"]),
        (
            ["--gpus", "2", "--checkpoint_period=7"],
            Training(devices=2, save_every=7),
            ["--gpus is now --devices", "--checkpoint_period is now --save-every"],
        ),
        (["--precision", "16-mixed"], Training(precision="fp16"), ["--precision 16-mixed is now fp16"]),
        (["--precision=32-true"], Training(), ["--precision 32-true is now float32"]),
        (["--backbone", "32-true"], Training("32-true"), []),
    ],
)
def test_former_flags_and_values_are_taken_with_a_note(
    capsys: pytest.CaptureFixture[str], words: list[str], expected: Training, notes: list[str]
) -> None:
    called: list[Training] = []
    commands = [Command("train", "Train.", Training, called.append)]
    assert run_program("trainer", "", commands, ["train", *words]) == 0
    assert called == [expected]
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"trainer: {', '.join(notes)}\n" if notes else "")


def test_former_names_in_a_file_are_taken_with_their_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "old.yaml"
    file.write_text("gpus: 2\nsave_every: 9\nprecision: bf16-mixed\n")
    called: list[Training] = []
    commands = [Command("train", "Train.", Training, called.append)]
    assert run_program("trainer", "", commands, ["train", "--config", str(file)]) == 0
    assert called == [Training(precision="bf16", devices=2, save_every=9)]
    err = capsys.readouterr().err
    assert f"{file}:1: gpus is now devices" in err
    assert f"{file}:3: precision bf16-mixed is now bf16" in err
    assert err.count("\n") == 1


def test_a_former_name_of_nothing_that_the_command_has_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [Command("train", "Train.", Training, lambda _: None)]
    assert run_program("trainer", "", commands, ["train", "--jobs", "2"]) == 2
    assert "no flag --jobs" in capsys.readouterr().err


def test_help_shows_no_former_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program("trainer", "", [Command("train", "Train.", Training, lambda _: None)], ["train", "--help"]) == 0
    assert "--arch" not in capsys.readouterr().out


def test_a_file_with_the_former_and_the_current_name_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("backbone: resnet50\narch: resnet18\n")
    with pytest.raises(UserError, match=r"settings\.yaml:2: arch is now backbone, which is set too"):
        read_config("painter", file, ["backbone"])
