from __future__ import annotations

import dataclasses
import errno
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest
import yaml

from ccop_hub.console import Command, run_program
from ccop_hub.errors import UserError
from ccop_hub.saved_settings import plain, save_settings


@dataclasses.dataclass
class Optimiser:
    """How the weights move.

    Args:
        lr: learning rate at a batch of 256.
        decay: weight decay.
        nesterov: whether to look ahead.
    """

    lr: float = 0.1
    decay: tuple[float, float] = (0.0, 0.5)
    nesterov: bool = False


@dataclasses.dataclass
class Settings:
    """Draw pictures.

    Args:
        files: pictures to read.
        out: folder to write.
        longest_side: in pixels.
        copies: of each picture; as many as there is room for if not given.
        finish: of the surface.
        dry_run: write nothing.
        size: width and height, in pixels.
        shades: of grey.
        optimiser: how the weights move.
    """

    files: list[Path]
    out: Path
    longest_side: int = 64
    copies: int | None = None
    finish: Literal["matt", "gloss"] = "matt"
    dry_run: bool = False
    size: tuple[int, int] | None = None
    shades: list[int] | None = None
    optimiser: Optimiser = dataclasses.field(default_factory=Optimiser)

    def __post_init__(self) -> None:
        if self.longest_side < 1:
            raise UserError("longest_side is below 1 pixel; give a size in pixels")


@dataclasses.dataclass
class Lookup:
    """Look something up.

    Args:
        name: what to look up.
    """

    name: str = "everything"


class Program:
    """A console program whose commands remember what they were called with."""

    def __init__(self, folder: Path) -> None:
        self.called: list[object] = []
        (folder / "large.yaml").write_text("longest_side: 1333\noptimiser:\n  lr: 0.02\n")
        self.commands = [
            Command("draw", "Draw.", Settings, self._run, ("files",), folder),
            Command("look", "Look.", Lookup, self._run, ("name",)),
        ]

    def _run(self, settings: object) -> None:
        self.called.append(settings)

    def __call__(self, *argv: str) -> int:
        return run_program("painter", "Paints.", self.commands, argv)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)


def test_positional_list_flags_and_defaults(program: Program) -> None:
    assert program("draw", "a.png", "b.png", "--out", "there", "--optimiser.lr", "2") == 0
    expected = Settings([Path("a.png"), Path("b.png")], Path("there"), optimiser=Optimiser(lr=2.0))
    assert program.called == [expected]


def test_positional_with_a_default_may_be_left_out(program: Program) -> None:
    assert (program("look"), program("look", "this")) == (0, 0)
    assert program.called == [Lookup("everything"), Lookup("this")]


@pytest.mark.parametrize(
    ("argv", "size", "lr"),
    [
        ([], 64, 0.1),
        (["--setting", "large"], 1333, 0.02),
        (["--setting=large", "--longest_side", "5"], 5, 0.02),
        (["--longest_side", "5", "--setting", "large"], 5, 0.02),
        (["--config", "FILE"], 7, 0.1),
        (["--setting", "large", "--config", "FILE"], 7, 0.02),
        (["--config", "FILE", "--setting", "large"], 7, 0.02),
        (["--config", "FILE", "--longest_side", "8"], 8, 0.1),
        (["--longest_side", "8", "--config", "FILE"], 7, 0.1),
    ],
)
def test_precedence(program: Program, tmp_path: Path, argv: list[str], size: int, lr: float) -> None:
    file = tmp_path / "mine.yml"
    file.write_text("longest_side: 7\n")
    assert program("draw", "a.png", "--out", "there", *[str(file) if word == "FILE" else word for word in argv]) == 0
    (settings,) = program.called
    assert isinstance(settings, Settings)
    assert (settings.longest_side, settings.optimiser.lr) == (size, lr)


@pytest.mark.parametrize(
    ("words", "dry", "nesterov"),
    [
        (["--dry-run"], True, False),
        (["--dry_run", "--optimiser.nesterov"], True, True),
        (["--dry-run", "false"], False, False),
        (["--dry-run=true"], True, False),
    ],
)
def test_switches_need_no_value(program: Program, words: list[str], dry: bool, nesterov: bool) -> None:
    assert program("draw", "a.png", *words, "--out", "there") == 0
    (settings,) = program.called
    assert isinstance(settings, Settings)
    assert (settings.dry_run, settings.optimiser.nesterov) == (dry, nesterov)


@pytest.mark.parametrize(
    "words",
    [
        ["--size", "3", "4", "--shades", "7", "8"],
        ["--size", "3,4", "--shades", "7,8"],
        ["--size", "[3, 4]", "--shades=[7,8]"],
        ["--shades", "7", "8", "--size=[3,4]"],
    ],
)
def test_numbers_behind_a_flag(program: Program, words: list[str]) -> None:
    assert program("draw", "a.png", *words, "--optimiser.decay", "1", "2", "--out", "there") == 0
    decay = Optimiser(decay=(1.0, 2.0))
    assert program.called == [Settings([Path("a.png")], Path("there"), size=(3, 4), shades=[7, 8], optimiser=decay)]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["draw", "a.png", "--out", "x", "--colour", "red"], "--colour red (see `painter draw --help`)"),
        (["draw", "a.png", "--out", "x", "--longest-side", "big"], "--longest-side: Expected int. Got value: big"),
        (["draw", "a.png", "--out", "x", "--copies", "few"], "painter: --copies: Expected int. Got value: few (see"),
        (
            ["draw", "a.png", "--out", "x", "--finish", "wet"],
            "Expected one of 'matt', 'gloss'. Got value: wet",
        ),
        (["draw", "a.png", "--out", "x", "--size", "5"], "--size: Expected 2 x int. Got value: ['5'] (see"),
        (["draw", "a.png", "--out", "x", "--shades", "1", "b"], "--shades: Expected one or more int. Got value:"),
        (["draw", "--out", "x", "--shades", "1", "a.png"], "Expected one or more int. Got value: [1, 'a.png'] (see"),
        (["draw", "a.png"], "required: --out (see"),
        (["draw", "--out", "x"], "required: FILES (see"),
        (["draw", "a.png", "--out", "x", "--setting", "huge"], "(choose from 'large')"),
        (["draw", "a.png", "--out", "x", "--config", "/no/such.yaml"], "'/no/such.yaml'"),
        (["draw", "a.png", "--out", "x", "--longest_side", "0"], "below 1 pixel"),
        (["sculpt"], "invalid choice: 'sculpt' (choose from 'draw', 'look') (see `painter --help`)"),
        ([], "{draw,look}"),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    program: Program, capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    assert program(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("painter: ")
    assert err.count("\n") == 1
    assert said in err
    assert program.called == []


@pytest.mark.parametrize("content", ["longest_sides: 3\n", "longest_side: [1\n", "- 1\n", "optimiser:\n  lr: fast\n"])
def test_wrong_settings_file(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    file = tmp_path / "wrong.yml"
    file.write_text(content)
    assert program("draw", "a.png", "--out", "x", "--config", str(file)) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_help_states_units_and_defaults(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        program("draw", "--help")
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("pictures to read", "in pixels. (type: int, default: 64)", "--setting {large}", "batch of 256"):
        assert words in shown


def _failing(error: BaseException) -> list[Command]:
    def run(_: Lookup) -> None:
        raise error

    return [Command("look", "Look.", Lookup, run, ("name",))]


def test_user_error_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program("painter", "", _failing(UserError("no paint;\n   buy some")), ["look"]) == 2
    assert capsys.readouterr().err == "painter: no paint; buy some\n"


def test_missing_package_names_the_extra(capsys: pytest.CaptureFixture[str]) -> None:
    missing = ModuleNotFoundError("No module named 'fvcore'", name="fvcore")
    assert run_program("ccop-hub", "", _failing(missing), ["look"]) == 2
    assert capsys.readouterr().err == "ccop-hub: needs the package 'fvcore': pip install 'ccop-hub[hub]'\n"


def test_our_own_defects_keep_their_traceback() -> None:
    with pytest.raises(ModuleNotFoundError):
        run_program("ccop-hub", "", _failing(ModuleNotFoundError("", name="ccop_hub.colour")), ["look"])
    with pytest.raises(ZeroDivisionError):
        run_program("ccop-hub", "", _failing(ZeroDivisionError()), ["look"])


def test_interrupt_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program("painter", "", _failing(KeyboardInterrupt()), ["look"]) == 130
    assert capsys.readouterr().err == "painter: interrupted\n"
    full = OSError(errno.ENOSPC, "No space left on device", "run/model.pth")
    assert run_program("painter", "", _failing(full), ["look"]) == 2
    assert capsys.readouterr().err == "painter: no space left on the disk: run/model.pth\n"
    assert run_program("painter", "", [Command("look", "Look.", Lookup, lambda _: 1)], ["look"]) == 1


def test_a_reader_that_has_had_enough_is_no_defect() -> None:
    script = (
        "import sys; from ccop_hub.console import *; import dataclasses\n"
        "@dataclasses.dataclass\nclass Settings: 'Talk.'\n"
        "command = Command('talk', 'Talk.', Settings, lambda _: [print(line) for line in range(100_000)] and 0)\n"
        "sys.exit(run_program('talker', '', [command], ['talk']))"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as talker:
        assert talker.stdout is not None
        assert talker.stdout.readline() == b"0\n"
        talker.stdout.close()
        assert talker.stderr is not None
        assert talker.stderr.read() == b""
    assert talker.returncode == 141


def test_saved_settings_read_back(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "run" / "settings.yaml"
    saved = Settings([Path("a.png")], Path("there"), 9, optimiser=Optimiser(0.3, (1.0, 2.0), True), dry_run=True)
    save_settings(saved, file)
    assert yaml.safe_load(file.read_text())["optimiser"] == {"lr": 0.3, "decay": [1.0, 2.0], "nesterov": True}
    assert program("draw", "a.png", "--config", str(file)) == 0
    assert program.called == [saved]


def test_plain_values() -> None:
    assert plain({1: (Path("a"), None, 2.5)}) == {"1": ["a", None, 2.5]}


@dataclasses.dataclass
class Joining:
    """Join folders.

    Args:
        out: folder to write.
        merge_from: folders to read.
        quiet: say nothing.
    """

    out: Path
    merge_from: list[Path] | None = None
    quiet: bool = False


@pytest.mark.parametrize(
    ("words", "folders"),
    [
        (["--merge-from", "a", "b c"], ["a", "b c"]),
        (["--merge_from", "a"], ["a"]),
        (["--merge-from", "a", "--quiet"], ["a"]),
        (["--merge-from", "[a, b]"], ["a", "b"]),
        (["--merge-from=[a]"], ["a"]),
        (["--merge-from", "a,b"], ["a,b"]),
        (["--merge-from", "null"], None),
        ([], None),
    ],
)
def test_a_list_takes_the_values_behind_its_flag(words: list[str], folders: list[str] | None) -> None:
    seen: list[Joining] = []
    command = Command("join", "join folders", Joining, seen.append)
    assert run_program("files", "", [command], ["join", *words, "--out", "o"]) == 0
    assert seen[0].merge_from == (None if folders is None else [Path(folder) for folder in folders])
    assert seen[0].quiet == ("--quiet" in words)


def test_a_word_that_a_list_flag_took_is_missed_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    command = Command("join", "join folders", Joining, lambda _: None, ("out",))
    assert run_program("files", "", [command], ["join", "--merge-from", "a", "there"]) == 2
    said = "required: OUT; --merge-from takes all that stands behind it, so put OUT before it (see `files join --help`)"
    assert said in capsys.readouterr().err
