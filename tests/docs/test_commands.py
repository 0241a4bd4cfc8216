"""All commands, flags and linked files in the documentation exist."""

import dataclasses
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from ccop_hub.console import run_program

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / ".github").rglob("*.md")])
HISTORY = ROOT / "CHANGELOG.md"
"""This page names removed flags."""

COMMANDS = {
    program: importlib.import_module(f"{package}.cli").COMMANDS
    for program, package in (("ccop-hub", "ccop_hub"), ("ccop-pretrain", "ccop_pretrain"), ("ccop-eval", "ccop_eval"))
}
ELSEWHERE = {
    "--cpus-per-task", "--export", "--gres", "--job-name", "--nodes", "--ntasks", "--ntasks-per-node", "--partition",
    "--requeue", "--signal", "--time", "--array", "--wrap",  # SLURM
    "--standalone", "--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--rdzv-id",  # torchrun
    "--logdir",  # tensorboard
    "--help", "--config", "--print-config", "--setting",  # every command
}  # fmt: skip
"""Flags of other programs, and those added to every command."""


CODE_BLOCK = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED_FILE = re.compile(r"`(\w+\.yaml)`:\n\n```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""Matches a settings file shown on a page: name, colon, contents."""


def shown(page: Path) -> list[tuple[str, bool]]:
    """A page's commands, and whether each is complete (in a code block) or may omit flags (inline code)."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in CODE_BLOCK.findall(text) for line in block.replace("\\\n", " ").splitlines()]
    inline = [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", CODE_BLOCK.sub("", text))]
    starts = tuple(f"{program} " for program in COMMANDS)
    found = [(line, True) for line in lines] + [(line, False) for line in inline if len(line.split()) > 2]
    return [(line, whole) for line, whole in found if line.startswith(starts) and "..." not in line]


TYPED = [
    pytest.param(page, line, whole, id=f"{page.name}-{number}")
    for page in PAGES
    if page != HISTORY
    for number, (line, whole) in enumerate(shown(page))
]


def test_the_pages_show_commands_of_every_program() -> None:
    assert {line.split()[0] for page in PAGES for line, _ in shown(page)} == set(COMMANDS)
    assert {page.name for page in PAGES if shown(page)} >= {"README.md", "detection.md", "evaluation.md", "training.md"}


@pytest.mark.parametrize(("page", "line", "whole"), TYPED)
def test_a_command_is_accepted(
    page: Path,
    line: str,
    whole: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in NAMED_FILE.findall(page.read_text(encoding="utf-8")):
        Path(name).write_text(text)
    program, *arguments = shlex.split(line, comments=True)
    taken: list[Any] = []
    commands = [dataclasses.replace(command, run=taken.append, show=None) for command in COMMANDS[program]]
    code = run_program(program, "", commands, arguments)
    complaint = capsys.readouterr().err
    if arguments[:1] == ["completion"]:
        assert code == 0
        return
    assert (code, len(taken)) == (0, 1) or (not whole and " missing" in complaint), complaint


@pytest.mark.parametrize("page", [page for page in PAGES if page != HISTORY], ids=lambda page: page.name)
def test_flags_and_links_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    fields = {
        field.name for each in COMMANDS.values() for command in each for field in dataclasses.fields(command.settings)
    }
    names = {name.replace("_", "-") for name in fields}
    programs = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "studies").rglob("*.py")]
    scripts = "".join(path.read_text(encoding="utf-8") for path in sorted(programs))
    known = {f"--{name}" for name in names} | {f"--no-{name}" for name in names}
    known |= {"--help", "--help-all", "--config", "--setting", "--json", "--version"}
    known |= set(re.findall(r"\"(--[a-z-]+)\"", scripts)) | ELSEWHERE
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) - known == set()
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []
