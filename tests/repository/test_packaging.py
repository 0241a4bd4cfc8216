"""The wheel holds everything that the programs need, and works where only the light dependencies are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOLDERS = {"ccop_hub": "ccop_hub", "pretrain": "ccop_pretrain", "eval": "ccop_eval"}


def run(*command: str | Path, **changes: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | changes
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked() -> list[str]:
    """Files of the three packages in the repository; all files where there is no git."""
    if (ROOT / ".git").exists():
        listed = run("git", "-C", ROOT, "ls-files", *FOLDERS).splitlines()
    else:
        listed = [path.relative_to(ROOT).as_posix() for name in FOLDERS for path in (ROOT / name).rglob("*.*")]
    return [name for name in listed if "__pycache__" not in name]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the source distribution, as `python -m build` does."""
    out = tmp_path_factory.mktemp("dist")
    source = out / "source"
    for name in ("pyproject.toml", "README.md", "LICENSE", *tracked()):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    (built,) = out.glob("*.whl")
    assert len(list(out.glob("*.tar.gz"))) == 1
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs' folder of a fresh environment with the wheel, which borrows this environment's other packages."""
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, with_pip=False)
    python = place / "bin" / "python"
    # `pip install --no-deps` of this environment, into the fresh one.
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet", wheel)
    (packages,) = (place / "lib").glob("python*/site-packages")
    # After the wheel's own folder on the path; the finders of an editable installation are left out.
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return python.parent


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    expected = {FOLDERS[name.split("/")[0]] + name[name.index("/") :] for name in tracked()}
    assert held == expected


def test_the_programs_run_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "import ccop_hub, ccop_pretrain, ccop_eval as e; print(ccop_hub.__file__, ccop_pretrain.__file__, e.__file__)"
    )
    places = run(installed / "python", "-I", "-c", code).split()
    assert all(place.startswith(str(installed.parent)) for place in places), places
    for program in PROJECT["scripts"]:
        assert run(installed / program, "--version").split() == [program, "0.1.0"]
    assert "small" in run(installed / "ccop-pretrain", "run", "--help-all")
    assert "coco-fpn-4conv1fc-1x" in run(installed / "ccop-eval", "detection", "--help")
    assert "resnet50.ccop_coco_800ep" in run(installed / "ccop-hub", "list")
    words = ["convert", "random", "--backbone", "test_resnet", "--to", "timm", "--out", tmp_path / "timm"]
    run(installed / "ccop-hub", *words)


def test_pip_installs_the_wheel_with_every_extra(installed: Path) -> None:
    """A dry run, with the packages of this environment in place of a registry: pip reads the wheel's own metadata."""
    extras = sorted(set(PROJECT["optional-dependencies"]) - {"dev", "fuzz", "heif", "docs"})
    wanted = f"{PROJECT['name']}[{','.join(extras)}]"
    pip = (sys.executable, "-m", "pip", "--python", installed / "python")
    told = run(*pip, "install", "--dry-run", "--no-index", wanted)
    for package in ("lightning", "pycocotools", "onnxruntime", "datasets", "pyarrow", "gdown"):
        assert re.search(rf"already satisfied: {package}[<>=~]", told), told
    done = subprocess.run(
        [*pip, "install", "--dry-run", "--no-index", f"{PROJECT['name']}[no-such-extra]"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "does not provide the extra" in done.stdout + done.stderr


def test_torch_hub_loads_from_a_clone_beside_the_wheel(installed: Path) -> None:
    code = (
        f"import torch; network = torch.hub.load({str(ROOT)!r}, 'ccop_resnet18', source='local', weights='random'); "
        "print(tuple(network(torch.zeros(1, 3, 64, 64)).shape))"
    )
    assert run(installed / "python", "-I", "-c", code).strip() == "(1, 512)"


def test_the_extras_are_named_by_task_and_complete() -> None:
    extras = PROJECT["optional-dependencies"]
    assert {"hub", "embed", "onnx", "pretrain", "eval"} <= set(extras)
    told = set()
    for path in (path for name in FOLDERS for path in (ROOT / name).rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        told |= set(re.findall(r"ccop-hub\[([\w,-]+)\]", text)) | set(re.findall(r'needs\("([\w-]+)"\)', text))
    assert {name for names in told for name in names.split(",")} <= set(extras)


def test_the_page_on_the_package_index_shows_its_pictures() -> None:
    pages = {"Documentation", "Source", "Issues", "Changelog"}
    assert pages <= set(PROJECT["urls"])
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for address in re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text):
        assert address.startswith("https://"), address
        assert (ROOT / address.partition("/HEAD/")[2]).is_file(), address


LIGHT = """
import importlib.machinery, sys
found = importlib.machinery.PathFinder.find_spec
def find_spec(cls, name, *more):
    return None if name.partition(".")[0] in {blocked} else found(name, *more)
importlib.machinery.PathFinder.find_spec = classmethod(find_spec)
from ccop_hub.cli import main
sys.exit(main({words}))
"""
"""Runs `ccop-hub` as if some packages were not installed."""

NOT_NEEDED = {
    *(
        "fvcore",
        "gdown",
        "braceexpand",
        "orjson",
        "pyarrow",
        "onnx",
        "onnxruntime",
        "onnxscript",
        "kornia",
        "lightning",
    ),
    *("matplotlib", "numba", "cv2", "tensorboard", "cityscapesscripts", "cloudpickle", "hydra", "iopath", "jinja2"),
    *("omegaconf", "pycocotools", "sklearn", "tabulate", "torchmetrics", "detectron2", "datasets", "pandas"),
}
"""Packages that only extras bring."""


def light(words: list[str], also: frozenset[str] = frozenset()) -> subprocess.CompletedProcess[str]:
    code = LIGHT.format(blocked=sorted(NOT_NEEDED | also), words=words)
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)


def test_commands_that_load_nothing_need_no_torch() -> None:
    heavy = frozenset({"torch", "torchvision", "timm", "safetensors", "PIL"})
    for words in (["--help"], ["list"], ["embed", "--help"], ["convert", "--help-all"], ["completion", "bash"]):
        done = light(words, heavy)
        assert done.returncode == 0, done.stderr


def test_weights_load_and_convert_with_the_light_dependencies(tmp_path: Path) -> None:
    out = tmp_path / "weights"
    words = ["convert", "random", "--backbone", "test_resnet", "--to", "safetensors", "--out", str(out)]
    to_timm = ["convert", str(out), "--to", "timm", "--out", str(tmp_path / "timm")]
    for command in (words, ["verify", str(out)], to_timm):
        done = light(command)
        assert done.returncode == 0, done.stderr


def test_a_command_without_its_packages_names_the_extra(tmp_path: Path) -> None:
    done = light(["convert", "random", "--backbone", "test_resnet", "--to", "onnx", "--out", str(tmp_path / "m.onnx")])
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "pip install 'ccop-hub[onnx]'" in done.stderr
