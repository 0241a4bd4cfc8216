"""`ccop-eval install-detectron2`: install a verified Detectron2 from PyPI, without a compiler.

PyPI has Detectron2 v0.6 only as an unofficial source distribution without the C++ sources. Its Python files are
identical to the official tag v0.6 (commit d1e0456), and Mask R-CNN needs none of the compiled operators. Its setup
script and metadata do not work with current tools: pip 26 rejects its dependencies, and the build needs the missing
sources. Since pip builds source distributions without `pyproject.toml` with setuptools, our build backend shadows
setuptools on the import path. pip handles the rest: index, proxies, digest and installation.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from ccop_hub.console import next_step
from ccop_hub.errors import UserError

from ..settings import InstallSettings
from .engine import DISTRIBUTION, load_engine

VERSION = "0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
"""SHA-256 of the source distribution, whose Python files were compared with the official tag v0.6."""


def install(settings: InstallSettings) -> None:
    """Install Detectron2 into the current environment, unless it is already installed.

    Raises:
        UserError: pip or the network is unavailable, or the downloaded file does not match the pinned digest.
    """
    present = importlib.util.find_spec("detectron2") is not None
    if not present:
        install_from_registry()
    engine = load_engine()
    compiled = "compiled" if engine.compiled else "not compiled, which Mask R-CNN does not need"
    state = "is already installed" if present else "is now installed"
    print(f"Detectron2 {engine.version} {state} ({engine.where}; {compiled})")
    next_step("ccop-eval", "doctor", "--task", "detection")


def install_from_registry(sha256: str = SHA256) -> None:
    """Download (518 kB), verify and install the source distribution with pip.

    Args:
        sha256: expected digest of the downloaded file, hexadecimal.
    """
    if importlib.util.find_spec("pip") is None:
        raise UserError(f"{sys.executable} has no pip: run `{sys.executable} -m ensurepip` first")
    with tempfile.TemporaryDirectory(prefix="ccop-install-") as folder:
        backend, requirements = Path(folder) / "backend", Path(folder) / "requirements.txt"
        _write_backend(backend)
        requirements.write_text(f"{DISTRIBUTION}=={VERSION} --hash=sha256:{sha256}\n", encoding="utf-8")
        # Disable pip's cache: do not use a wheel built from this file in another way, or leave ours for other builds.
        options = ["--no-cache-dir", "--no-deps", "--no-build-isolation", "--no-binary", DISTRIBUTION]
        command = [sys.executable, "-m", "pip", "install", *options, "--requirement", str(requirements)]
        # pip < 25.3 runs the setup script directly unless PEP 517 is requested. Later versions dropped the flag, but
        # all accept the variable.
        environment = {**os.environ, "PYTHONPATH": str(backend), "PIP_USE_PEP517": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(_failure(done.stdout + done.stderr, sha256))
    importlib.invalidate_caches()


def _write_backend(folder: Path) -> None:
    """Write a folder that makes pip build with `sdist_backend` instead of setuptools when first on the import path."""
    (folder / "setuptools").mkdir(parents=True)
    (folder / "setuptools" / "__init__.py").touch()
    (folder / "setuptools" / "build_meta.py").write_text("import sdist_backend as __legacy__\n", encoding="utf-8")
    shutil.copy(Path(__file__).with_name("sdist_backend.py"), folder / "sdist_backend.py")


def _failure(output: str, sha256: str) -> str:
    """Summarise pip's output in one line: what went wrong and how to fix it."""
    package = f"{DISTRIBUTION}=={VERSION}"
    if "DO NOT MATCH THE HASHES" in output:
        got = output.partition("Got")[2].split() or ["unknown"]
        return (
            f"the registry's {package} is not the pinned file (sha256 {got[0]} instead of {sha256}): "
            "nothing was installed; install Detectron2 from its official repository instead"
        )
    if "No matching distribution" in output or "Could not find a version" in output or "ConnectionError" in output:
        return (
            f"pip found no {package}: check the network and `pip config list`, or install Detectron2 from its "
            "official repository"
        )
    errors = [line.strip() for line in output.splitlines() if "ERROR" in line or "error:" in line]
    return f"pip could not install {package}: {errors[-1] if errors else 'it gave no reason'}"
