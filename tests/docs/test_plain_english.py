"""Documentation, docstrings and messages contain no phrases that read as translated."""

from __future__ import annotations

import io
import re
import subprocess
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTEAD = {
    r"mend(s|ed|ing)?": "fix",
    r"(whole|full) road|the road (of|from|to|holds)": "pipeline",
    r"walk(s|ed)? (the|it|its)": "run, go through",
    r"(at|on|to) hand": "available, ready",
    r"know it\b|knows of itself": "contains it, has it",
    r"for want of": "without, because there is no",
    r"for lack of memory": "out of memory",
    r"go(es|ing)? on with": "resumes, continues with",
    r"goes on (from|where|at|by|after)|stopping and going on": "resumes",
    r"(is|are) told (from|apart)|tell(s|ing)? (\w+ ){0,3}apart": "is distinguished from, is contrasted with",
    r"alone (is|are) needed|needs \w+ alone": "needs only",
    r"in vain": "without effect, unsuccessfully",
    r"in no (file|case|way)": "not in any",
    r"package registry alone|from the registry alone": "from PyPI",
    r"at (its|their) first call": "on first run",
    r"pulled together": "collapses",
    r"drawn scenes?": "synthetic images",
    r"has had its say|no say in": "does not count",
    r"start(s|ed|ing)? anew": "start over",
    r"take one of": "use one of",
    r"get it again": "download it again",
    r"exclude (one another|each other)": "cannot be combined",
}
"""Banned phrases, as regular expressions, and their replacements."""

DATA = ("tests/parity/data/", "benchmarks/results/", "LICENSE", "constraints.txt")
SUFFIXES = {".md", ".py", ".toml", ".yaml", ".yml", ".cff", ".html", ""}


def tracked() -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [
        ROOT / name
        for name in names.split("\0")
        if name and not name.startswith(DATA) and Path(name).suffix in SUFFIXES and (ROOT / name).is_file()
    ]


def prose(path: Path) -> str:
    """A file's readable text on one line: comments and strings of Python files, all of other files."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        text = "\n".join(token.string.lstrip("#") for token in tokens if token.type in kinds)
    return " ".join(text.split())


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    own = Path(__file__)
    return {str(path.relative_to(ROOT)): prose(path) for path in tracked() if path != own}


def test_the_scan_reads_comments_strings_and_pages(texts: dict[str, str], tmp_path: Path) -> None:
    assert {"README.md", "Makefile", "pyproject.toml", "ccop_hub/errors.py", "tests/docs/test_commands.py"} <= set(
        texts
    )
    file = tmp_path / "some.py"
    file.write_text('"""To mend\n    it."""\n\nmend = f"for {1} want of"  # at\n# hand\n')
    assert prose(file).replace('"', "").split()[:3] == ["To", "mend", "it."]
    assert re.search(r"\bat hand\b", prose(file))
    assert "mend =" not in prose(file)


@pytest.mark.parametrize("phrase", INSTEAD)
def test_plain_english(phrase: str, texts: dict[str, str]) -> None:
    pattern = re.compile(rf"\b(?:{phrase})\b", re.IGNORECASE)
    found = [
        f"{name}: ...{text[max(0, match.start() - 40) : match.end() + 40]}..."
        for name, text in texts.items()
        for match in pattern.finditer(text)
    ]
    assert found == [], f"write: {INSTEAD[phrase]}"
