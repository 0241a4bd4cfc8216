"""Reading weights files that may be damaged or hostile: nothing of a file is ever run.

safetensors hold no code. PyTorch files go through `torch.load(weights_only=True)` with `argparse.Namespace` as the one
class added (SlotCon, SoCo, PixPro and DINO keep their command line in it). Other pickles go through `numpy_pickle`.
Which of them a file is, its first bytes tell; its name does not matter.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import UserError, one_line
from .numpy_pickle import read_pickle

_ZIP = b"PK\x03\x04"
_TORCH_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How `torch.save` files began before torch 1.6: a pickle of the magic number 0x1950a86a20f9469cfc6c."""

_SLACK = 1 << 20
"""Bytes that an archive's entries may exceed the file by; they are stored uncompressed, so they never do."""


_ASKED = re.compile(r"GLOBAL ([\w.]+)|(?:unrecognized function|`add_safe_globals`,? but got) (.{1,80})")
"""The class or function in what `torch.load` says when it refuses one."""


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a weights file holds.

    Attributes:
        tree: plain containers with tensors (CPU) in them; for safetensors name -> tensor.
        metadata: the text metadata of a safetensors file.
        container: `safetensors`, `torch` or `pickle`.
    """

    tree: Any
    metadata: Mapping[str, str]
    container: str


def read_file(path: Path) -> Contents:
    """Read a weights file without running anything in it.

    Raises:
        UserError: not a weights file, damaged, truncated, a decompression bomb, or a pickle that asks for a class
            beyond those allowed; the error says which, and what to do.
    """
    with path.open("rb") as stream:
        start = stream.read(512)
    if start.startswith(_ZIP):
        _check_archive(path)
        return Contents(_torch_load(path), {}, "torch")
    if start.startswith(_TORCH_LEGACY):
        return Contents(_torch_load(path), {}, "torch")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size:
        tensors, metadata = _read_safetensors(path)
        return Contents(tensors, metadata, "safetensors")
    if start[:1] == b"\x80" or path.suffix in (".pkl", ".pickle"):
        return Contents(read_pickle(path), {}, "pickle")
    raise UserError(
        f"{path} is not a weights file ({_looks_like(start, path)}): give a .safetensors, .pth or .pkl file"
    )


def facts_in(metadata: Mapping[str, str], key: str, path: Path) -> dict[str, Any]:
    """The JSON object in one entry of a safetensors file's metadata; empty if there is none.

    Raises:
        UserError: the entry is not a JSON object.
    """
    try:
        facts = json.loads(metadata.get(key, "{}"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise UserError(f"{path} holds facts that are not a JSON object: export it again")
    return facts


def _looks_like(start: bytes, path: Path) -> str:
    if not start:
        return "it is empty"
    if start.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")):
        return "it is a web page: the download needed a confirmation or a login"
    if start.lstrip()[:1] in (b"{", b"["):
        return "it is JSON or other text"
    if start[8:9] == b"{":
        return "a truncated safetensors file: get it again"
    if path.suffix in (".tar", ".gz", ".zst", ".xz"):
        return "unpack it first"
    return "unknown first bytes"


def _check_archive(path: Path) -> None:
    """Refuse what `torch.save` never writes: compressed, repeated or overlapping entries."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
        raise UserError(f"{path} is a damaged or truncated archive ({one_line(error)}): get it again") from None
    names = [entry.filename for entry in entries]
    if len(set(names)) != len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{path} holds the entry {repeated!r} twice, which torch.save never writes: do not trust it")
    if any(name.endswith("/constants.pkl") for name in names):
        raise UserError(f"{path} is a TorchScript archive, which holds code: save the state_dict of its module")
    size = path.stat().st_size
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise UserError(f"{path} holds compressed entries, which torch.save never writes: do not trust it")
    if sum(entry.file_size for entry in entries) > size + _SLACK:
        raise UserError(f"{path} would unpack to more than its own {size} bytes: do not trust it")


def _torch_load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        asked = _ASKED.search(str(error))
        if asked is None:
            raise UserError(f"{path} is a damaged or truncated PyTorch file: get it again") from None
        named = one_line(asked[1] or asked[2])
        if named.startswith("torch.nn."):
            raise UserError(f"{path} is a pickled {named}, which holds code: save its state_dict instead") from None
        raise UserError(f"{path} asks for {named}, which weights do not need; do not trust it") from None
    except Exception as error:  # the bytes decide what fails inside torch: any of it means that they can not be read
        told = one_line(error) or type(error).__name__
        raise UserError(f"{path} can not be read as a PyTorch file ({told}): get it again") from None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as opened:
            names = opened.keys()
            return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}
    except SafetensorError as error:
        raise UserError(f"{path} is not a whole safetensors file ({one_line(error)}): get it again") from None
