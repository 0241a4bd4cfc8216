import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

LIKE_V06 = {
    "__init__.py": "__version__ = '0.6'",
    "layers/__init__.py": "from detectron2 import _C\nimport PIL.Image\nPIL.Image.LINEAR",
    "engine/__init__.py": "",
}
"""A package that imports what v0.6 does: the compiled operators and a filter that Pillow removed."""

PACKAGES = {
    "without operators": LIKE_V06,
    "compiled": {**LIKE_V06, "_C.py": "answer = 42"},
    "broken": {**LIKE_V06, "layers/__init__.py": "import no_such_module"},
    "checked out": LIKE_V06,
    "operators of another torch": {
        **LIKE_V06,
        "layers/__init__.py": "",
        "_C.py": "raise ImportError('undefined symbol')",
    },
}

PROGRAM = """
import json, os, sys, traceback
from ccop_eval.detection import engine
folder, names = sys.argv[1], sys.argv[2:]
for name in names:
    # A process each, since a package is imported once; the slow imports above are shared.
    if os.fork():
        os.wait()
        continue
    sys.path.insert(0, os.path.join(folder, name))
    found = {}
    try:
        loaded = engine.load_engine()
        found = {"version": loaded.version, "where": loaded.where, "compiled": loaded.compiled}
        from detectron2 import _C
        found["answer"] = getattr(_C, "answer", None)
    except Exception:
        found["error"] = traceback.format_exc()
    with open(os.path.join(folder, name + ".json"), "w") as file:
        json.dump(found, file)
    os._exit(0)
"""


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """The description of each of `PACKAGES` when it is the Detectron2 on the import path."""
    folder = tmp_path_factory.mktemp("engines")
    for name, package in PACKAGES.items():
        for file, text in package.items():
            path = folder / name / "detectron2" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    _commit(folder / "checked out")
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(folder), *PACKAGES], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = {name: json.loads((folder / f"{name}.json").read_text()) for name in PACKAGES}
    head = subprocess.run(["git", "-C", str(folder / "checked out"), "rev-parse", "HEAD"], capture_output=True)
    found["checked out"]["commit"] = head.stdout.decode().strip()
    return found


def _commit(folder: Path) -> None:
    who = ["-c", "user.name=nobody", "-c", "user.email=nobody@example.org"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "sources"]):
        subprocess.run(["git", "-C", str(folder), *command], check=True, capture_output=True)


def test_sources_without_operators_get_a_stand_in_that_names_what_is_asked_of_it(
    described: dict[str, dict[str, Any]],
) -> None:
    found = described["without operators"]
    assert (found["where"], found["compiled"]) == ("official sources on the import path", False)
    assert "UserError: this Detectron2 has no compiled operator answer" in found["error"]


def test_sources_of_no_known_commit_are_told_apart_by_their_files(described: dict[str, dict[str, Any]]) -> None:
    content = "".join(f"{name}\0{text}\0" for name, text in sorted(LIKE_V06.items()))
    expected = hashlib.sha256(content.encode()).hexdigest()[:12]
    assert described["without operators"]["version"] == f"0.6+sha256.{expected}"
    assert described["compiled"]["version"] != described["without operators"]["version"]


def test_sources_in_a_git_checkout_are_named_by_its_commit(described: dict[str, dict[str, Any]]) -> None:
    found = described["checked out"]
    assert len(found["commit"]) == 40
    assert found["version"] == f"0.6+{found['commit'][:7]}"


def test_compiled_operators_are_used(described: dict[str, dict[str, Any]]) -> None:
    found = described["compiled"]
    assert (found["compiled"], found["answer"]) == (True, 42)
    assert "error" not in found


def test_operators_that_do_not_load_are_as_good_as_none(described: dict[str, dict[str, Any]]) -> None:
    assert described["operators of another torch"]["compiled"] is False


def test_another_broken_import_is_not_hidden(described: dict[str, dict[str, Any]]) -> None:
    assert "ModuleNotFoundError: No module named 'no_such_module'" in described["broken"]["error"]


def test_the_installed_engine_says_where_it_is_from() -> None:
    from ccop_eval.detection.engine import load_engine

    engine = load_engine()
    assert engine.name == "detectron2"
    assert engine.version.startswith("0.6")
    assert engine.where.startswith(("registry (pb1-detectron2", "official"))
    assert ("+" in engine.version) == engine.where.startswith("official")
    assert load_engine() == engine
