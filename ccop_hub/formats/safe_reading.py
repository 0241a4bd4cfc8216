"""Read possibly damaged or malicious weights files without running any code in them.

safetensors and `.npz` files contain no code. PyTorch files and other pickles are read by a machine that only builds
containers, arrays and tensors; all other objects become notes. The file type is detected from the first bytes, not
from the name.
"""

from __future__ import annotations

import dataclasses
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError, one_line
from ..regular_files import open_regular
from .inert_pickle import DamagedPickleError, HostilePickleError, Note, Rebuilder, read_pickle
from .rebuilders import Arrays, NumpyArray, container_names
from .torch_files import LEGACY_START, ZIP_START, archive_entries, mapped, read_torch_legacy, read_torch_zip
from .weights_files import LARGEST_HEADER

_NPZ_RATIO = 8
"""Maximum compression ratio of an `.npz` file; trained weights barely compress."""

_COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf": "7-Zip",
}
_TAR_MAGIC = slice(257, 262)


@dataclasses.dataclass(frozen=True)
class Contents:
    """Contents of a weights file.

    Attributes:
        tree: plain containers with tensors (CPU), and a `Note` for each object of another class; for safetensors,
            name -> tensor. Tensors may be views of the file: copy the ones to keep.
        metadata: string metadata of a safetensors file.
        container: `safetensors`, `torch`, `pickle` or `npz`.
    """

    tree: Any
    metadata: Mapping[str, str]
    container: str


def read_file(path: Path) -> Contents:
    """Read a weights file without running any code in it.

    Raises:
        UserError: the file is not a weights file, is damaged or truncated, unpacks to an excessive size, or is a pickle
            that names an object whose only use is to run code. The message says which, and what to do.
    """
    try:
        return _read(path)
    except HostilePickleError as error:
        raise HostilePickleError(f"{path} {error}") from None
    except DamagedPickleError as error:
        raise UserError(f"{path} is damaged or truncated ({error}): download it again") from None
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror or one_line(error)}): check the path") from None
    # Damage outside the pickles can raise many different exceptions.
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError, struct.error) as error:
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise UserError(f"{path} is damaged or truncated ({reason}): download it again") from error


def _read(path: Path) -> Contents:
    with open_regular(path) as stream:
        start = stream.read(512)
    if start.startswith(ZIP_START):
        entries = archive_entries(path)
        if entries and all(entry.filename.endswith(".npy") for entry in entries):
            return Contents(_read_npz(path, entries), {}, "npz")
        return Contents(_finished(read_torch_zip(path, entries)), {}, "torch")
    if start.startswith(LEGACY_START):
        return Contents(_finished(read_torch_legacy(path)), {}, "torch")
    header = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and header <= path.stat().st_size:
        if header > LARGEST_HEADER:
            raise UserError(
                f"{path} has a header of {header >> 20} MiB, larger than that of any network: do not use it"
            )
        tensors, metadata = _read_safetensors(path)
        return Contents(tensors, metadata, "safetensors")
    if start[:1] == b"\x80" or (path.suffix in (".pkl", ".pickle") and not _is_text(start)):
        data = mapped(path)
        arrays = Arrays(len(data))
        tree, _ = read_pickle(data, container_names() | arrays.names())
        return Contents(_finished(tree), {}, "pickle")
    raise UserError(f"{path} is not a weights file ({_looks_like(start)}): give a .safetensors, .pth or .pkl file")


def _is_text(start: bytes) -> bool:
    return not start or start.lstrip()[:1] in (b"<", b"{", b"[")


def _looks_like(start: bytes) -> str:
    if not start:
        return "it is empty"
    if start.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page: the download needed a confirmation or a login"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS: run git lfs pull"
    if start.lstrip()[:1] in (b"{", b"["):
        return "it is JSON or other text"
    if start[8:9] == b"{":
        return "a truncated safetensors file: download it again"
    if start[_TAR_MAGIC] == b"ustar":
        return "it is a tar archive: unpack it first"
    packed = next((name for magic, name in _COMPRESSED.items() if start.startswith(magic)), None)
    return f"it is compressed by {packed}: unpack it first" if packed else "unknown first bytes"


def _finished(tree: Any) -> Any:
    """Replace arrays with tensors in all dictionaries and lists, visiting each container once."""
    seen: set[int] = set()
    whole = [tree]
    pending: list[Any] = [whole]
    while pending:
        value = pending.pop()
        if not isinstance(value, dict | list | tuple) or id(value) in seen:
            continue
        seen.add(id(value))
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for key, item in list(pairs):
            if isinstance(item, NumpyArray | Rebuilder) and not isinstance(value, tuple):
                value[key] = item.value if isinstance(item, NumpyArray) else Note(item.name)
            else:
                pending.append(item)
    return whole[0]


def _read_npz(path: Path, entries: list[zipfile.ZipInfo]) -> dict[str, Tensor]:
    if sum(entry.file_size for entry in entries) > _NPZ_RATIO * path.stat().st_size:
        raise UserError(f"{path} would unpack to more than {_NPZ_RATIO} times its size: it contains no trained weights")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    except TypeError:
        raise UserError(f"{path} contains non-numeric arrays: keep only the weights") from None
    # The header of an array can ask for any amount of memory.
    except (ValueError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not a complete .npz file ({one_line(error)}): download it again") from None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as opened:
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path} is not a complete safetensors file ({one_line(error)}): download it again") from None
