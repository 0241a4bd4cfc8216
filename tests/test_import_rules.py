"""Import rules: the contracts in `pyproject.toml`, and rules that import-linter cannot express."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMPORT_NAMES = {"ccop_hub": "ccop_hub", "pretrain": "ccop_pretrain", "eval": "ccop_eval"}
SOURCES = [path for folder in IMPORT_NAMES for path in sorted((ROOT / folder).rglob("*.py"))]
# Any module may query the hardware; only one may communicate between processes.
COLLECTIVES = ROOT / "pretrain" / "common" / "distributed.py"
CAPABILITIES = {"torch.distributed.is_available", "torch.distributed.is_nccl_available"}
# Needed for only one published file, and imported when that file is downloaded.
OPTIONAL = {"gdown"}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(level, module) of every import in a file, including inside functions; level 0 is absolute."""
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


def test_the_contracts_of_pyproject_hold() -> None:
    # Run in a subprocess: import-linter configures logging, which would disable other tests' loggers.
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True, no_logo=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_imports_inside_a_package_are_relative() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == set(IMPORT_NAMES)
    # Importing by folder name only works from the repository's root.
    named = {path: {IMPORT_NAMES[path.relative_to(ROOT).parts[0]], "pretrain", "eval"} for path in SOURCES}
    assert {str(path): found for path in SOURCES if (found := absolute(path) & named[path])} == {}


def test_tensors_are_moved_to_a_chosen_device() -> None:
    """`.cuda()` would move them to the first GPU, whichever device was requested."""
    functions = [(path, node.func) for path in SOURCES for node in walk(path) if isinstance(node, ast.Call)]
    methods = [(path, node) for path, node in functions if isinstance(node, ast.Attribute)]
    assert [f"{path}:{node.lineno}" for path, node in methods if node.attr == "cuda"] == []


def test_processes_talk_in_one_module() -> None:
    assert COLLECTIVES.is_file()
    for path in SOURCES:
        if path == COLLECTIVES:
            continue
        assert not [module for _, module in imported(path) if module.startswith("torch.distributed")], path
        used = {ast.unparse(node) for node in walk(path) if isinstance(node, ast.Attribute)}
        assert {name for name in used if name.startswith("torch.distributed.")} <= CAPABILITIES, path


def walk(path: Path) -> Iterator[ast.AST]:
    yield from ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def test_hubconf_imports_ccop_hub_alone() -> None:
    assert absolute(ROOT / "hubconf.py") == {"ccop_hub"}


def reachable() -> set[Path]:
    """The modules of `ccop_hub` that loading a network through `hubconf` can import, lazily or not."""
    package = ROOT / "ccop_hub"
    waiting = [package / "hub.py"]
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
    assert ROOT / "ccop_hub" / "sources" / "resolve.py" in modules
    used = set().union(*(absolute(path) for path in modules)) - set(sys.stdlib_module_names)
    assert used - OPTIONAL == set(declared)


def test_importing_ccop_hub_brings_no_heavy_package() -> None:
    """`--help` works without importing torch; loading imports only torch, timm and their dependencies."""
    code = "import sys, ccop_hub, ccop_hub.console, ccop_hub.cli; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "timm", "huggingface_hub", "cyclopts", "pydantic", "rich"} & set(found) == set()


def test_no_function_of_the_python_api_shares_its_name_with_a_module() -> None:
    """Importing such a module would put it in the function's place."""
    for folder, name in (("ccop_hub", "ccop_hub"), ("pretrain", "ccop_pretrain"), ("eval", "ccop_eval")):
        modules = {path.stem for path in (ROOT / folder).glob("*.py")}
        modules |= {path.parent.name for path in (ROOT / folder).glob("*/__init__.py")}
        assert not modules & set(importlib.import_module(name).__all__)
