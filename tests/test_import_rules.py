"""Who may import whom, read from the sources themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
IMPORT_NAMES = {"ccop_hub": "ccop_hub", "pretrain": "ccop_pretrain", "eval": "ccop_eval"}
FORBIDDEN = {
    "ccop_hub": {"ccop_pretrain", "ccop_eval", "pretrain", "eval"},
    "pretrain": {"ccop_eval", "pretrain", "eval"},
    "eval": {"ccop_pretrain", "pretrain", "eval"},
}
SOURCES = [(folder, path) for folder in IMPORT_NAMES for path in sorted((ROOT / folder).rglob("*.py"))]
# What a machine can do may be asked anywhere; processes talk to each other in one module alone.
CAPABILITIES = {"torch.distributed.is_available", "torch.distributed.is_nccl_available"}
# Needed for one published file alone, and asked for when that file is.
OPTIONAL = {"gdown"}

each_source = pytest.mark.parametrize(
    ("folder", "path"), SOURCES, ids=[path.relative_to(ROOT).as_posix() for _, path in SOURCES]
)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(level, module) of every import in a file, those inside functions included; level 0 is absolute."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module is None:
                yield from ((node.level, alias.name) for alias in node.names)
            else:
                yield node.level, node.module


def absolute(path: Path) -> set[str]:
    """Top-level names of a file's absolute imports."""
    return {module.split(".")[0] for level, module in imported(path) if level == 0}


def test_the_three_packages_were_found() -> None:
    assert {folder for folder, _ in SOURCES} == set(IMPORT_NAMES)


@each_source
def test_forbidden_imports(folder: str, path: Path) -> None:
    assert absolute(path) & FORBIDDEN[folder] == set()


@each_source
def test_imports_inside_a_package_are_relative_and_stay_inside(folder: str, path: Path) -> None:
    assert IMPORT_NAMES[folder] not in absolute(path)
    depth = len(path.relative_to(ROOT / folder).parts)
    assert all(level <= depth for level, _ in imported(path))


@each_source
def test_devices_and_processes_are_chosen_in_one_place(folder: str, path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    assert not [node.lineno for node in calls if isinstance(node.func, ast.Attribute) and node.func.attr == "cuda"]
    if path != ROOT / "pretrain" / "distributed.py":
        assert not [module for _, module in imported(path) if module.startswith("torch.distributed")]
        used = {ast.unparse(node) for node in attributes if ast.unparse(node.value) == "torch.distributed"}
        assert used <= CAPABILITIES


def test_hubconf_imports_ccop_hub_alone() -> None:
    assert absolute(ROOT / "hubconf.py") == {"ccop_hub"}


def reachable() -> set[Path]:
    """The modules of `ccop_hub` that loading a network through `hubconf` can import, lazily or not."""
    package = ROOT / "ccop_hub"
    waiting = [package / "__init__.py", package / "hub.py"]
    seen: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ImportFrom) or node.level == 0:
                continue
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            candidates = [base.with_suffix(".py"), base / "__init__.py"]
            candidates += [base / f"{alias.name}.py" for alias in node.names]
            waiting += [candidate for candidate in candidates if candidate.is_file()]
    return seen


def test_hubconf_dependencies_are_what_loading_imports() -> None:
    tree = ast.parse((ROOT / "hubconf.py").read_text(encoding="utf-8"))
    (declared,) = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "dependencies"
    ]
    modules = reachable()
    assert ROOT / "ccop_hub" / "resolve.py" in modules
    used = set().union(*(absolute(path) for path in modules)) - set(sys.stdlib_module_names)
    assert used - OPTIONAL == set(declared)


def test_importing_ccop_hub_brings_no_heavy_package() -> None:
    """The console programs answer `--help` without torch; loading pulls in torch, timm and their own needs alone."""
    code = "import sys, ccop_hub, ccop_hub.console, ccop_hub.cli; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "timm", "huggingface_hub", "jsonargparse", "rich"} & set(found) == set()
