"""A build backend that packages a source distribution's Python files unchanged: no setup script, no compiler.

pip runs this file in a separate process, in the unpacked source distribution, through the PEP 517 interface
(https://peps.python.org/pep-0517/), so it imports only the standard library. The wheel declares no dependencies: those
of the upload are partly invalid and partly outdated, and `ccop-hub[eval]` installs what Detectron2 needs.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

PACKAGE = "detectron2"
"""The import package to put into the wheel."""


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """Write the `.dist-info` folder into `metadata_directory` and return its name (PEP 517 hook)."""
    folder = _dist_info(Path.cwd())
    for name, content in _dist_info_files(Path.cwd()).items():
        target = Path(metadata_directory) / folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Write a wheel of the package's files into `wheel_directory` and return its name (PEP 517 hook).

    Raises:
        FileNotFoundError: the source distribution does not contain the package.
    """
    root = Path.cwd()
    if not (root / PACKAGE / "__init__.py").is_file():
        raise FileNotFoundError(f"{root} contains no package {PACKAGE}")
    paths = (path for path in sorted((root / PACKAGE).rglob("*")) if path.is_file())
    files = {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}
    folder = _dist_info(root)
    files |= {f"{folder}/{name}": content for name, content in _dist_info_files(root).items()}
    record = "".join(f"{name},sha256={_record_digest(content)},{len(content)}\n" for name, content in files.items())
    files[f"{folder}/RECORD"] = f"{record}{folder}/RECORD,,\n".encode()
    name = f"{folder.removesuffix('.dist-info')}-py3-none-any.whl"
    with zipfile.ZipFile(Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
    return name


def _facts(root: Path) -> tuple[str, str]:
    """Name and version of the source distribution."""
    headers = HeaderParser().parsestr((root / "PKG-INFO").read_text(encoding="utf-8"))
    return str(headers["Name"]), str(headers["Version"])


def _dist_info(root: Path) -> str:
    name, version = _facts(root)
    return f"{name.replace('-', '_')}-{version}.dist-info"


def _dist_info_files(root: Path) -> dict[str, bytes]:
    name, version = _facts(root)
    files = {
        "METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        "WHEEL": b"Wheel-Version: 1.0\nGenerator: ccop-eval\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if (root / "LICENSE").is_file():
        files["LICENSE"] = (root / "LICENSE").read_bytes()
    return files


def _record_digest(content: bytes) -> str:
    """SHA-256 as unpadded URL-safe base64, the format of a wheel's RECORD."""
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
