"""The tutorials and notebooks run as written, from an empty folder and without a network."""

import importlib
import re
import shlex
from pathlib import Path

import nbclient
import nbformat
import pytest

from ccop_hub.console import run_program

ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run_command(line: str) -> None:
    program, *arguments = shlex.split(line, comments=True)
    commands = importlib.import_module(program.replace("-", "_") + ".cli").COMMANDS
    assert run_program(program, "", commands, arguments) == 0, line


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert {language for language, _ in blocks} <= {"bash", "python"}, "every block of a tutorial is run"
    for language, code in blocks:
        if language == "python":
            exec(code, {})
        else:
            for line in code.replace("\\\n", " ").splitlines():
                run_command(line)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_results(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "notebooks are committed without outputs"
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert any("text/html" in output.get("data", {}) for output in shown)
    assert not [output for output in shown if output.output_type == "error"]


def test_there_are_tutorials_for_every_kind_of_user() -> None:
    assert {page.stem for page in TUTORIALS} == {"evaluate", "load", "pretrain"}
    assert {path.stem for path in NOTEBOOKS} == {"load-and-compare", "pretrain"}
