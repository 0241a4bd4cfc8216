"""The files that GitHub, pip, pre-commit and citation tools read."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pre_commit.clientlib import load_config

import ccop_hub

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
WORKFLOW = ROOT / ".github" / "workflows" / "ci.yml"
UNPINNED = {"torch", "torchvision"}
"""The user chooses which of these to install."""


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("citation-file-format", "CITATION.cff"),
        ("github-workflows", ".github/workflows/*.yml"),
        ("github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
        ("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
    ],
)
def test_files_follow_their_schema(schema: str, files: str) -> None:
    found = sorted(ROOT.glob(files))
    assert found
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{schema}", *map(str, found)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_pre_commit_runs_programs_that_make_installs() -> None:
    hooks = [hook for repo in load_config(str(ROOT / ".pre-commit-config.yaml"))["repos"] for hook in repo["hooks"]]
    recipes = (ROOT / "Makefile").read_text(encoding="utf-8")
    for hook in hooks:
        assert hook["language"] in ("system", "unsupported"), "anything else is fetched from a network"
        program = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"$(BIN)/{program} " in recipes


def dependencies() -> list[Requirement]:
    """What `make install` installs: the dependencies, plus those of `dev` and the extras that it refers to."""
    extras = PROJECT["project"]["optional-dependencies"]
    found = [Requirement(line) for line in [*PROJECT["project"]["dependencies"], *extras["dev"]]]
    (own,) = [each for each in found if each.name == PROJECT["project"]["name"]]
    found.remove(own)
    return [*found, *(Requirement(line) for extra in sorted(own.extras) for line in extras[extra])]


def test_constraints_pin_every_dependency_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    wanted = {canonicalize_name(each.name): each.specifier for each in dependencies() if each.name not in UNPINNED}
    assert sorted(wanted.keys() - versions.keys()) == [], "run `make constraints`"
    assert {name: versions[name] for name, bounds in wanted.items() if versions[name] not in bounds} == {}
    assert not [name for name in versions if name in UNPINNED or name.startswith(("nvidia-", "cuda-", "triton"))]


def test_ci_covers_the_supported_pythons_and_the_oldest_torch() -> None:
    job = yaml.safe_load(WORKFLOW.read_text(encoding="utf-8"))["jobs"]["check"]
    matrix = job["strategy"]["matrix"]
    classifiers = re.findall(r"Python :: (3\.\d+)", " ".join(PROJECT["project"]["classifiers"]))
    assert matrix["python"] == classifiers
    assert {entry.partition("-")[0] for entry in matrix["os"]} == {"ubuntu", "macos"}
    lower = {each.name: next(iter(each.specifier)).version for each in dependencies() if each.name in UNPINNED}
    oldest = " ".join(f"{name}=={version}.0" for name, version in lower.items())
    assert {entry["os"] for entry in matrix["include"] if entry["torch"] == oldest} == set(matrix["os"])
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]


def test_the_version_stands_in_one_place_and_in_the_changelog() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "ccop_hub.__version__"}
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[:2] == ["Unreleased", ccop_hub.__version__]


def test_the_changelog_groups_its_changes() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    for version in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        groups = re.findall(r"^### (.+)$", version, re.MULTILINE)
        assert groups == [name for name in ("Added", "Changed", "Fixed", "Removed") if name in groups]
        assert not version.partition("###")[0].partition("\n")[2].strip(), "a change without a group"


def test_every_target_of_make_is_described() -> None:
    printed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r"^  make ([a-z]+) +\S", printed, re.MULTILINE) == targets


def test_the_check_script_runs_in_bash_3() -> None:
    """No associative arrays, `mapfile`, `${x,,}` or `&>>`, which macOS's bash lacks."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert not re.search(r"declare -A|local -A|mapfile|readarray|\$\{\w+(,,|\^\^)|&>>|\|&", script)
    subprocess.run(["bash", "-n", ".ci/run"], cwd=ROOT, check=True)
