from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ccop_hub.saved_settings import save_settings

from .conftest import Lookup, Painting, Program

A, OUT = [Path("a.png")], Path("there")


def painting(**changed: Any) -> Painting:
    return Painting(**{"files": A, "out": OUT, **changed})


def test_positional_words_flags_and_defaults(program: Program) -> None:
    assert program("draw", "a.png", "b.png", "--out", "there", "--gloss", "1") == 0
    assert program.called == [Painting([Path("a.png"), Path("b.png")], OUT, gloss=1.0)]


def test_a_positional_setting_may_be_a_flag_or_be_left_out(program: Program) -> None:
    assert (program("look"), program("look", "this"), program("look", "--name", "that")) == (0, 0, 0)
    assert program.called == [Lookup("everything"), Lookup("this"), Lookup("that")]


@pytest.mark.parametrize(
    ("argv", "side", "gloss"),
    [
        ([], 64, 0.5),
        (["--setting", "large"], 1333, 0.75),
        (["--setting=large", "--longest_side", "5"], 5, 0.75),
        (["--longest-side", "5", "--setting", "large"], 5, 0.75),
        (["--config", "FILE"], 7, 0.5),
        (["--setting", "large", "--config", "FILE"], 7, 0.75),
        (["--config", "FILE", "--setting", "large"], 7, 0.75),
        (["--config", "FILE", "--longest-side", "8"], 8, 0.5),
        (["--longest-side", "8", "--config", "FILE"], 8, 0.5),
        (["--longest-side", "8", "--longest-side", "9"], 9, 0.5),
    ],
)
def test_flags_go_before_files_and_files_before_named_settings(
    program: Program, tmp_path: Path, argv: list[str], side: int, gloss: float
) -> None:
    file = tmp_path / "mine.yml"
    file.write_text("longest_side: 7\n")
    assert program("draw", "a.png", "--out", "there", *[str(file) if word == "FILE" else word for word in argv]) == 0
    assert program.called == [painting(longest_side=side, gloss=gloss)]


@pytest.mark.parametrize(
    ("words", "dry"),
    [
        (["--dry-run"], True),
        (["--dry_run"], True),
        (["--no-dry-run"], False),
        (["--dry-run", "--no-dry-run"], False),
        (["--dry-run", "false"], False),
        (["--dry-run", "true"], True),
        (["--dry-run=true"], True),
    ],
)
def test_switches(program: Program, words: list[str], dry: bool) -> None:
    assert program("draw", "a.png", *words, "--out", "there") == 0
    assert program.called == [painting(dry_run=dry)]


@pytest.mark.parametrize(
    "words",
    [
        ["--size", "3", "4", "--shades", "7", "-8"],
        ["--size", "3,4", "--shades", "7,-8"],
        ["--size", "[3, 4]", "--shades=[7,-8]"],
        ["--shades", "7", "-8", "--size=[3,4]"],
    ],
)
def test_numbers_behind_a_flag(program: Program, words: list[str]) -> None:
    assert program("draw", "a.png", *words, "--out", "there") == 0
    assert program.called == [painting(size=(3, 4), shades=[7, -8])]


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        (["--layers", "a", "b c"], ["a", "b c"]),
        (["--layers", "a", "--dry-run"], ["a"]),
        (["--layers", "[a, b]"], ["a", "b"]),
        (["--layers=[a]"], ["a"]),
        (["--layers", "a,b"], ["a,b"]),
        (["--layers", "null"], None),
        (["--layers", "None"], None),
    ],
)
def test_paths_behind_a_flag(program: Program, words: list[str], layers: list[str] | None) -> None:
    assert program("draw", "a.png", "--out", "there", *words) == 0
    expected = None if layers is None else [Path(layer) for layer in layers]
    assert program.called == [painting(layers=expected, dry_run="--dry-run" in words)]


def test_nothing_for_an_optional_number(program: Program) -> None:
    assert program("draw", "a.png", "--out", "there", "--copies", "none") == 0
    assert program.called == [painting(copies=None)]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            ["draw", "a.png", "--out", "x", "--longest-sied", "3"],
            "no flag --longest-sied; did you mean --longest-side",
        ),
        (["draw", "a.png", "--out", "x", "--longest_sied=3"], "did you mean --longest-side?"),
        (["draw", "a.png", "--out", "x", "--longest-side", "big"], "--longest-side big is not allowed: give a whole"),
        (
            ["draw", "a.png", "--out", "x", "--longest-side", "0"],
            "--longest-side 0 is not allowed: give a",
        ),
        (["draw", "a.png", "--out", "x", "--longest-side"], "--longest-side needs a value"),
        (["draw", "a.png", "--out", "x", "--copies", "few"], "--copies few is not allowed: give a whole number"),
        (["draw", "a.png", "--out", "x", "--copies", "1.5"], "--copies 1.5 is not allowed"),
        (["draw", "a.png", "--out", "x", "--gloss", "nan"], "--gloss nan is not allowed: give a number from 0 to 1"),
        (["draw", "a.png", "--out", "x", "--finish", "glosy"], "give matt or glossy; did you mean glossy?"),
        (["draw", "a.png", "--out", "x", "--size", "5"], "--size 5 is not allowed: give 2 values"),
        (["draw", "a.png", "--out", "x", "--shades", "1", "b"], "--shades 1 b is not allowed"),
        (["draw", "a.png", "--out", ""], "--out '' is not allowed: give a path"),
        (["draw", "a.png"], "--out is missing (see `painter draw --help`)"),
        (["draw"], "FILES and --out are missing"),
        (["draw", "--out", "x", "--layers", "l", "a.png"], "--layers takes every word after it, so put FILES first"),
        (
            ["draw", "a.png", "--out", "x", "--setting", "lagre"],
            "--setting lagre: give one of large; did you",
        ),
        (["draw", "a.png", "--out", "x", "--config", "/no/such.yaml"], "/no/such.yaml: no such file"),
        (["look", "this", "that"], "that"),
        (["darw"], "no command 'darw'; did you mean draw?"),
        (["--verson"], "--verson"),
        ([], "give a command: draw, look"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(
    program: Program, capsys: pytest.CaptureFixture[str], argv: list[str], said: str
) -> None:
    assert program(*argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("painter: ")
    assert err.count("\n") == 1
    assert said in err
    assert program.called == []


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("gloss: 1\nlongest_sides: 3\n", ":2: there is no setting 'longest_sides'; did you mean longest_side?"),
        ("gloss: 1\nlongest_side: [1\n", ":3 is not YAML"),
        ("- 1\n", "is not a settings file"),
        ("out: x\ngloss: bright\n", ":2: --gloss bright is not allowed: give a number from 0 to 1"),
        ("copies: true\n", ":1: --copies True is not allowed"),
        ("\x00", "is not YAML"),
        ("gloss: 1\ngloss: 0\n", ":2 is not YAML: 'gloss' is there twice"),
        ("gloss: [1]\n", ":1: --gloss [1] is not allowed"),
        ('layers: ["a\\0b"]\n', ":1: --layers a b is not allowed"),
        ('layers: "\\ud800"\n', ":1: --layers "),
    ],
)
def test_a_wrong_file_is_named_with_its_line(
    program: Program, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, said: str
) -> None:
    file = tmp_path / "wrong.yml"
    file.write_text(content)
    assert program("draw", "a.png", "--out", "x", "--config", str(file)) == 2
    err = capsys.readouterr().err
    assert str(file) in err
    assert said in err
    assert err.count("\n") == 1


def test_a_file_may_name_one_item_without_brackets_and_the_home_folder(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tmp_path / "settings.yml"
    file.write_text("layers: ~/2024-11-27\nout: 007\n")
    assert program("draw", "a.png", "--config", str(file)) == 0
    assert program.called == [painting(layers=[tmp_path / "2024-11-27"], out=Path("007"))]


def test_saved_settings_read_back(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "run" / "settings.yaml"
    saved = painting(longest_side=9, size=(1, 2), dry_run=True, layers=[Path("b c")])
    save_settings(saved, file)
    assert program("draw", "--config", str(file)) == 0
    assert program("draw", "--config", str(file), "--no-dry-run") == 0
    assert program.called == [saved, painting(longest_side=9, size=(1, 2), layers=[Path("b c")])]


def shown(program: Program, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert program(*argv) == 0
    return " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_help_lists_the_commands_in_order(program: Program, capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(program, capsys, "--help")
    assert text.index("Draw pictures.") < text.index("Look something up.")
    assert "completion" in text


def test_help_shows_what_one_usually_sets_and_help_all_the_rest(
    program: Program, capsys: pytest.CaptureFixture[str]
) -> None:
    text = shown(program, capsys, "draw", "--help")
    for words in ("--out PATH Folder to write. [required]", "--longest-side N In pixels. [1 or more] [default: 64]"):
        assert words in text
    assert "--setting NAME" in text
    assert "[choices: large]" in text
    assert "--gloss" not in text
    assert "[default: ]" not in text
    assert "painter draw --help-all" in text
    text = shown(program, capsys, "draw", "--help-all")
    assert "Drawing" in text
    assert "--gloss X Share of light that is reflected. [from 0 to 1] [default: 0.5]" in text
    assert "[choices: matt, glossy] [default: matt]" in text
    assert "--size N N" in text


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_names_commands_flags_and_choices(
    program: Program, capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    script = shown(program, capsys, "completion", shell)
    for word in ("painter", "draw", "look", "--longest-side", "glossy", "large"):
        assert word in script
