import subprocess
import sys
from pathlib import Path

import pytest

LIKE_V06 = {
    "__init__.py": "__version__ = '0.6'",
    "layers/__init__.py": "from detectron2 import _C\nimport PIL.Image\nPIL.Image.LINEAR",
    "engine/__init__.py": "",
}
"""A package with what v0.6 asks of its surroundings: the operators and a filter that Pillow no longer has."""


def _describe(folder: Path, package: dict[str, str], then: str = "") -> str:
    for name, text in package.items():
        path = folder / "detectron2" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    program = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "from ccop_eval.detection.engine import load_engine\n"
        f"engine = load_engine()\n{then}\nprint(engine.version, engine.where, engine.compiled, sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_sources_without_operators_get_a_stand_in_that_names_what_is_asked_of_it(tmp_path: Path) -> None:
    then = (
        "from detectron2 import _C\nfrom ccop_hub.errors import UserError\n"
        "try:\n    _C.nms_rotated\nexcept UserError as error:\n    assert 'nms_rotated' in str(error)\n"
        "else:\n    raise SystemExit('no error')"
    )
    assert _describe(tmp_path, LIKE_V06, then) == "0.6|official sources on the import path|False"


def test_compiled_operators_are_used(tmp_path: Path) -> None:
    package = {**LIKE_V06, "_C.py": "answer = 42"}
    then = "from detectron2 import _C\nassert _C.answer == 42"
    assert _describe(tmp_path, package, then) == "0.6|official sources on the import path|True"


def test_another_broken_import_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no_such_module"):
        _describe(tmp_path, {**LIKE_V06, "layers/__init__.py": "import no_such_module"})


def test_the_installed_engine_says_where_it_is_from() -> None:
    from ccop_eval.detection.engine import load_engine

    engine = load_engine()
    assert engine.name == "detectron2"
    assert engine.version.startswith("0.6")
    assert engine.where.startswith(("registry (pb1-detectron2", "official"))
    assert load_engine() == engine
