"""Every setting of every program rejects invalid values, and settings survive a round trip to disk."""

from __future__ import annotations

import dataclasses
import typing
from pathlib import Path
from typing import Any, Literal

import ccop_eval.cli
import ccop_pretrain.cli
import pytest

import ccop_hub.cli
from ccop_hub.console import Command, run_program
from ccop_hub.errors import UserError
from ccop_hub.formats.conversion import TARGETS
from ccop_hub.saved_settings import save_settings
from ccop_hub.settings import Format
from ccop_hub.validation import describe, field_help, field_types, without_bounds

PROGRAMS = {
    "ccop-hub": ccop_hub.cli.COMMANDS,
    "ccop-pretrain": ccop_pretrain.cli.COMMANDS,
    "ccop-eval": ccop_eval.cli.COMMANDS,
}
COMMANDS = [(program, command) for program, commands in PROGRAMS.items() for command in commands]
NAMES = [f"{program} {command.name}" for program, command in COMMANDS]

WRONG = {
    int: ["-1", "1.5", "many"],
    float: ["-1", "nan", "inf", "much"],
    Literal: ["nothing-of-the-kind"],
    Path: [""],
    str: [""],
}
"""Type -> values that no setting of that type accepts."""


def smallest(command: Command) -> dict[str, Any]:
    """Values for settings without a default."""
    values: dict[str, Any] = {}
    for name in command.required():
        kind, _ = without_bounds(field_types(command.settings)[name])
        values[name] = [name] if typing.get_origin(kind) is list else "timm" if name == "to" else name
        if kind is int:
            values[name] = 512
    if command.name == "run":
        values["proposals"] = "proposals"
    return values


def flags(values: dict[str, Any], command: Command) -> list[str]:
    first = [word for name in command.positional for word in _listed(values[name])]
    others = {name: value for name, value in values.items() if name not in command.positional}
    return first + [word for name, value in others.items() for word in (f"--{name}", *_listed(value))]


def _listed(value: Any) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else [str(value)]


def wrong_values() -> list[Any]:
    cases = []
    for program, command in COMMANDS:
        for name, kind in field_types(command.settings).items():
            inner = kind
            while typing.get_args(inner) and typing.get_origin(inner) is not Literal:
                parts = [part for part in typing.get_args(inner) if part is not type(None)]
                inner = parts[0]
            base = Literal if typing.get_origin(inner) is Literal else inner
            several = typing.get_origin(without_bounds(kind)[0]) is tuple
            for value in WRONG.get(base, []):
                words = [value] * (len(typing.get_args(without_bounds(kind)[0])) if several else 1)
                cases.append(pytest.param(program, command, name, words, id=f"{program} {command.name} {name} {value}"))
    return cases


@pytest.mark.parametrize(("program", "command", "name", "words"), wrong_values())
def test_a_value_out_of_range_is_one_line_before_any_work(
    program: str, command: Command, name: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    called: list[Any] = []
    values = {key: value for key, value in smallest(command).items() if key != name}
    positional = dataclasses.replace(command, run=called.append, positional=(), show=None)
    argv = [command.name, *flags(values, positional), f"--{name.replace('_', '-')}", *words]
    assert run_program(program, "", [positional], argv) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"{program}: --{name.replace('_', '-')} ")
    assert ": give " in err
    assert err.count("\n") == 1
    assert called == []


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("ccop-pretrain run --crop-area 2 3", "two shares above 0 and at most 1"),
        ("ccop-pretrain run --crop-area 0.5 0.1", "the smaller one first"),
        ("ccop-pretrain run --crop-area 0 1", "above 0"),
        ("ccop-pretrain run --crop-ratio 2 1", "the smaller one first"),
        ("ccop-pretrain run --momentum 5", "from 0 to 1"),
        ("ccop-pretrain run --sgd-momentum 1", "0 or more and below 1"),
        ("ccop-pretrain run --dropout 1.5", "0 or more and below 1"),
        ("ccop-pretrain run --dropout 1", "0 or more and below 1"),
        ("ccop-pretrain run --temperature-image 0", "above 0"),
        ("ccop-pretrain run --lr 0", "above 0"),
        ("ccop-pretrain run --iou-threshold 2 1", "each a number from 0 to 1"),
        ("ccop-pretrain run --embedding-dim 0", "1 or more"),
        ("ccop-pretrain run --epochs 0", "1 or more"),
        ("ccop-pretrain run --batch-size 0", "1 or more"),
        ("ccop-pretrain run --log-every 0", "1 or more"),
        ("ccop-pretrain run --save-every 0", "1 or more"),
        ("ccop-pretrain run --devices 0", "1 or more or auto"),
        ("ccop-pretrain run --devices all", "1 or more or auto"),
        ("ccop-pretrain run --max-unreadable 2", "from 0 to 1"),
        ("ccop-pretrain run --probe-every 0", "above 0"),
        ("ccop-pretrain run --seed 4294967296", "from 0 to 4294967295"),
        ("ccop-pretrain proposals --keep 0", "1 or more"),
        ("ccop-pretrain proposals --max-side 0", "1 or more"),
        ("ccop-pretrain proposals --workers 0", "1 or more"),
        ("ccop-pretrain proposals --shard 3/2", "I/N"),
        ("ccop-pretrain proposals --shard 0/2", "I/N"),
        ("ccop-pretrain scenes --val-share 1", "above 0 and below 1"),
        ("ccop-pretrain scenes --val-share 0", "above 0 and below 1"),
        ("ccop-pretrain scenes --clutter 3", "from 0 to 1"),
        ("ccop-pretrain scenes --size 1", "96 or more"),
        ("ccop-pretrain scenes --images 1", "2 or more"),
        ("ccop-pretrain inspect --count 0", "1 or more"),
        ("ccop-pretrain plan --images 0", "1 or more"),
        ("ccop-pretrain plan --scaling 0", "above 0 and at most 1"),
        ("ccop-pretrain plan --eval-size 31", "32 or more"),
        ("ccop-eval linear --holdout 1", "above 0 and below 1"),
        ("ccop-eval linear --holdout 0", "above 0 and below 1"),
        ("ccop-eval linear --epochs 0", "1 or more"),
        ("ccop-eval linear --image-size 31", "32 or more"),
        ("ccop-eval knn --temperature 0", "above 0"),
        ("ccop-eval knn --neighbours 0", "1 or more"),
        ("ccop-eval knn --neighbours 5 0", "1 or more"),
        ("ccop-eval voc-svm --costs 0", "above 0"),
        ("ccop-eval segmentation --stride -1", "0 or more"),
        ("ccop-eval segmentation --ignore 256", "from 0 to 255"),
        ("ccop-eval segmentation --lr 0", "above 0"),
        ("ccop-eval segmentation --label-map 255", "VALUE:ID"),
        ("ccop-eval detection --few-images 7%", "1%, 5% or 10%"),
        ("ccop-eval detection --devices 0", "1 or more"),
        ("ccop-eval detection --protocol small-cp", "did you mean small-cpu?"),
        ("ccop-eval detection --precision bf16", "float32 or fp16"),
        ("ccop-eval visualize --box 10 10 5 5", "x1 < x2"),
        ("ccop-eval visualize --box 1 2 3", "four numbers"),
        ("ccop-eval visualize --limit 0", "1 or more"),
        ("ccop-eval doctor --task detektion", "did you mean detection?"),
        ("ccop-hub convert --to timn", "did you mean timm?"),
    ],
)
def test_bounds(line: str, allowed: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, name, *words = line.split()
    (command,) = (command for command in PROGRAMS[program] if command.name == name)
    values = {key: value for key, value in smallest(command).items() if f"--{key}" != words[0]}
    alone = dataclasses.replace(command, run=lambda _: pytest.fail("it ran"), positional=(), show=None)
    assert run_program(program, "", [alone], [name, *flags(values, alone), *words]) == 2
    err = capsys.readouterr().err
    assert f"{' '.join(words)} is not allowed: give " in err
    assert allowed in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("ccop-pretrain run --objective mocov2 --weight-image 0", "--objective mocov2 has weight 0"),
        ("ccop-pretrain run --compile --activation-checkpointing", "--compile and --activation-checkpointing"),
        ("ccop-pretrain run --precision fp16 --accelerator cpu", "--precision fp16 needs a GPU"),
        ("ccop-pretrain plan --precision fp16 --accelerator cpu", "--precision fp16 needs a GPU"),
        ("ccop-pretrain plan --devices 3", "--batch-size 256 cannot be divided between 3 devices"),
        ("ccop-pretrain proposals --check --merge a", "--merge and --check cannot be combined"),
        ("ccop-pretrain proposals --shard 1/2 --overwrite", "remove --overwrite or --shard"),
        ("ccop-pretrain proposals --ground-truth a.json", "add --check"),
        ("ccop-eval linear --precision fp16 --accelerator cpu", "--precision fp16 needs a GPU"),
        ("ccop-eval regions --short-side 64 --long-side 32", "--long-side 32 is below --short-side 64"),
        ("ccop-eval segmentation --scale-to 0 5", "--scale-to 0 5"),
        ("ccop-eval detection --node-rank 1", "--node-rank 1 is not allowed"),
        ("ccop-eval detection --num-nodes 2", "--dist-url tcp://HOST:PORT"),
        ("ccop-eval detection --eval-only --overwrite", "--overwrite would remove the run that --eval-only evaluates"),
    ],
)
def test_settings_that_do_not_go_together(line: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    program, name, *words = line.split()
    (command,) = (command for command in PROGRAMS[program] if command.name == name)
    alone = dataclasses.replace(command, run=lambda _: pytest.fail("it ran"), positional=(), show=None)
    assert run_program(program, "", [alone], [name, *flags(smallest(command), alone), *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("program", "command"), COMMANDS, ids=NAMES)
def test_saved_settings_given_back_are_the_same(program: str, command: Command, tmp_path: Path) -> None:
    taken: list[Any] = []
    alone = dataclasses.replace(command, run=taken.append, show=None)
    assert run_program(program, "", [alone], [command.name, *flags(smallest(command), command)]) == 0
    save_settings(taken[0], tmp_path / "settings.yaml")
    assert run_program(program, "", [alone], [command.name, "--config", str(tmp_path / "settings.yaml")]) == 0
    assert taken[1] == taken[0]
    assert [type(value) for value in vars(taken[1]).values()] == [type(value) for value in vars(taken[0]).values()]


@pytest.mark.parametrize(("program", "command"), COMMANDS, ids=NAMES)
def test_python_callers_get_the_same_check(program: str, command: Command) -> None:
    values = smallest(command)
    made = command.settings(**values)
    for name, kind in field_types(command.settings).items():
        assert describe(kind)
        if without_bounds(kind)[0] is not bool and name in values:
            with pytest.raises(UserError, match=rf"^--{name.replace('_', '-')} "):
                dataclasses.replace(made, **{name: ""})


@pytest.mark.parametrize(("program", "command"), COMMANDS, ids=NAMES)
def test_every_setting_is_described_and_shown(
    program: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = field_help(command.settings)
    assert set(field_types(command.settings)) <= set(texts)
    assert set(command.common) | set(command.positional) <= set(field_types(command.settings))
    assert run_program(program, "", [command], [command.name, "--help-all"]) == 0
    shown = capsys.readouterr().out
    for name in field_types(command.settings):
        assert f"--{name.replace('_', '-')}" in shown, name


@pytest.mark.parametrize("name", ["linear", "knn", "voc-svm", "regions", "segmentation", "detection"])
def test_the_first_three_settings_of_an_evaluation_may_be_given_by_position(name: str) -> None:
    (command,) = (command for command in ccop_eval.cli.COMMANDS if command.name == name)
    made = command.settings("w", "d", "o")
    assert (made.weights, made.data, made.out) == ("w", Path("d"), Path("o"))


def test_formats_of_convert() -> None:
    assert list(typing.get_args(Format)) == [*TARGETS, "onnx"]
