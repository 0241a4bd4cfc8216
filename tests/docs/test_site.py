"""`make docs` builds a site without warnings: every page, every setting, nothing from other servers."""

import dataclasses
import html
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = {"ccop-hub": "ccop_hub", "ccop-pretrain": "ccop_pretrain", "ccop-eval": "ccop_eval"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run([sys.executable, ROOT / "scripts/site/build.py", out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out


def text_of(page: Path) -> str:
    return html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_page_of_the_repository_is_on_the_site(site: Path) -> None:
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    assert [page for page in sorted(pages) if not (site / page).is_file()] == []
    assert "ccop_resnet50" in text_of(site / "index.html")


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_reference_has_every_command_and_setting(site: Path, program: str) -> None:
    text = text_of(site / "reference" / f"{program}.html")
    for command in importlib.import_module(f"{PROGRAMS[program]}.cli").COMMANDS:
        assert f"\n{program} {command.name}" in text
        flags = [f"--{field.name.replace('_', '-')}" for field in dataclasses.fields(command.settings)]
        assert [flag for flag in flags if flag not in text] == []


def test_the_reference_has_every_function(site: Path) -> None:
    text = text_of(site / "reference" / "python.html")
    for package in PROGRAMS.values():
        module = importlib.import_module(package)
        assert [name for name in module.__all__ if name[0] != "_" and f"{package}.{name}" not in text] == []


def test_pages_load_nothing_from_other_servers(site: Path) -> None:
    loaded = {
        address
        for page in site.rglob("*.html")
        for address in re.findall(r"<(?:script|img|link)\b[^>]*\b(?:src|href)=\"(\w+:[^\"]+)", page.read_text("utf-8"))
    }
    assert {address for address in loaded if not address.startswith("data:")} == set()
