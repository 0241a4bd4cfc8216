import importlib.util
import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from ccop_eval.cli import main
from ccop_eval.detection import install, sdist_backend

from ccop_hub.errors import UserError

FILES = {
    "PKG-INFO": "Metadata-Version: 2.1\nName: pb1-detectron2\nVersion: 0.6\nRequires-Dist: x @ https://example.org/x.zip\n",
    "LICENSE": "the licence",
    "setup.py": "raise SystemExit('the setup script was run')",
    "detectron2/__init__.py": '__version__ = "0.6"\n',
    "detectron2/layers/__init__.py": "",
    "detectron2/model_zoo/configs/a.yaml": "A: 1\n",
    "projects/other.py": "",
}


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A local folder that pip uses as its index; it installs to `tmp_path / target`."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with tarfile.open(folder / "pb1-detectron2-0.6.tar.gz", "w:gz") as archive:
        for name, text in FILES.items():
            entry = tarfile.TarInfo(f"pb1-detectron2-0.6/{name}")
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "target"))
    return folder


def _sha256(file: Path) -> str:
    done = subprocess.run([sys.executable, "-m", "pip", "hash", str(file)], capture_output=True, text=True, check=True)
    return done.stdout.strip().rpartition(":")[2]


def test_pip_installs_the_package_without_its_setup_script_or_its_dependencies(registry: Path, tmp_path: Path) -> None:
    install.install_from_registry(_sha256(registry / "pb1-detectron2-0.6.tar.gz"))
    target = tmp_path / "target"
    assert (target / "detectron2" / "__init__.py").read_text() == FILES["detectron2/__init__.py"]
    assert (target / "detectron2" / "model_zoo" / "configs" / "a.yaml").is_file()
    assert not (target / "projects").exists()
    metadata = (target / "pb1_detectron2-0.6.dist-info" / "METADATA").read_text()
    assert "Name: pb1-detectron2" in metadata
    assert "Requires-Dist" not in metadata


def test_a_file_with_another_digest_is_refused(registry: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not the pinned file") as caught:
        install.install_from_registry()
    assert _sha256(registry / "pb1-detectron2-0.6.tar.gz") in str(caught.value)
    assert not (tmp_path / "target").exists()


def test_an_unreachable_registry_is_told_in_one_line(
    registry: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (registry / "pb1-detectron2-0.6.tar.gz").unlink()
    _hide(monkeypatch, "detectron2")
    assert main(["install-detectron2"]) == 2
    told = capsys.readouterr().err
    assert "pip found no pb1-detectron2==0.6: check the network" in told
    assert told.count("\n") == 1


def test_a_python_without_pip_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    _hide(monkeypatch, "pip")
    with pytest.raises(UserError, match="ensurepip"):
        install.install_from_registry()


def test_an_engine_that_is_there_is_used_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(install, "install_from_registry", lambda: pytest.fail("installed again"))
    assert main(["install-detectron2"]) == 0
    assert "is already installed" in capsys.readouterr().out


def test_the_wheel_records_every_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(tmp_path / sdist_backend.build_wheel(str(tmp_path))) as wheel:
        record = wheel.read("pb1_detectron2-0.6.dist-info/RECORD").decode()
        assert sorted(wheel.namelist()) == sorted(line.split(",")[0] for line in record.splitlines())
        assert wheel.read("pb1_detectron2-0.6.dist-info/LICENSE") == b"the licence"


def test_a_source_distribution_without_the_package_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match="no package detectron2"):
        sdist_backend.build_wheel(str(tmp_path))


def _hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Hide one package from the import system."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
