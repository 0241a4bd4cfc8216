"""The files of a checkpoint folder, and the facts stored with the weights.

A checkpoint folder contains two files: `backbone_fpn.safetensors` (`backbone.safetensors` without a pyramid), with
tensors under canonical names and the facts in the metadata, so that it is self-contained; and `facts.json`, the same
facts for people and tools.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError, first_names
from ..regular_files import MAX_JSON, parse_json
from .facts import checked_facts
from .timm_folder import TIMM_CONFIG_FILE, TIMM_FILES, timm_facts

WEIGHTS_FILE = "backbone_fpn.safetensors"
BACKBONE_FILE = "backbone.safetensors"
"""Name of the same file without a pyramid."""

WEIGHTS_FILES = (WEIGHTS_FILE, BACKBONE_FILE)
FACTS_FILE = "facts.json"
METADATA_KEY = "ccop"
"""Key in the safetensors metadata of the facts, stored as JSON."""

_INDEX_SUFFIX = ".index.json"
"""End of the name of the file that lists the shards of a large network, as transformers writes it."""

_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".tar", ".bin", ".pkl", ".npz")

LARGEST_HEADER = 8 << 20
"""Maximum size in bytes of the header of a safetensors file; reading it takes up to 25 times as much memory. Headers of
real networks take less than a megabyte."""


def find_weights_file(path: Path) -> Path:
    """Return the weights file for a path: the path itself, or the file in a checkpoint, run or timm folder.

    Raises:
        UserError: there is no weights file.
    """
    if path.is_file():
        return path
    if path.exists() and not path.is_dir():
        raise UserError(f"{path} is not a regular file: give a checkpoint file, its folder or a run's folder")
    if not path.is_dir():
        raise UserError(f"{path} does not exist: give a checkpoint file, its folder or a run folder")
    own = [place / name for place in (path, path / "exported") for name in WEIGHTS_FILES]
    for candidate in (*own, *(path / name for name in TIMM_FILES)):
        if candidate.is_file():
            return candidate
    raise UserError(_nothing_found(path))


def _nothing_found(folder: Path) -> str:
    """Say what a folder without a weights file contains instead, and what to give."""
    for name in (*WEIGHTS_FILES, *TIMM_FILES):
        if (folder / name).is_symlink():
            return f"{folder / name} is a broken link: download the weights again, or give their file"
    names = sorted(path.name for path in folder.glob("*"))
    index = next((name for name in names if name.endswith(_INDEX_SUFFIX)), None)
    if index is not None:
        return f"{folder} contains weights in several files ({index}): save the network's state dict to one file"
    if any(name.startswith("adapter_") for name in names):
        return f"{folder} contains an adapter, not a network: merge it into its network, and give that"
    if (folder / "snapshots").is_dir() or folder.name == "snapshots":
        snapshots = folder if folder.name == "snapshots" else folder / "snapshots"
        some = next(iter(sorted(snapshots.glob("*/"))), snapshots / "REVISION")
        return f"{folder} is part of the Hugging Face cache: give a snapshot, such as {some}"
    files = [name for name in names if name.lower().endswith(_SUFFIXES)]
    if files:
        return f"{folder} is not a checkpoint folder, but contains {first_names(files, 3)}: give the file"
    return (
        f"{folder} contains no {WEIGHTS_FILE} or {TIMM_FILES[0]}, and neither does its exported/: give a checkpoint "
        "file or a run folder"
    )


def stored_facts(file: Path, metadata: Mapping[str, str]) -> tuple[dict[str, Any], bool]:
    """Read the facts stored with weights: in the file's metadata, and in the `config.json` of a timm folder.

    Args:
        file: the weights file.
        metadata: its safetensors metadata; empty for other formats.

    Returns:
        The facts, and whether the file belongs to a timm folder.

    Raises:
        UserError: the facts are damaged, or one of them has the wrong type.
    """
    own = checked_facts(facts_in(metadata, METADATA_KEY, file), file)
    config = file.with_name(TIMM_CONFIG_FILE)
    shown = timm_facts(config) if file.name in TIMM_FILES and os.path.lexists(config) else None
    return {**(shown or {}), **own}, shown is not None


def facts_in(metadata: Mapping[str, str], key: str, path: Path) -> dict[str, Any]:
    """Parse the JSON object in an entry of safetensors metadata; empty if the entry is missing.

    Raises:
        UserError: the entry is not a JSON object.
    """
    try:
        text = metadata.get(key, "{}")
        facts = parse_json(text) if len(text) <= MAX_JSON else None
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise UserError(f"{path} contains metadata that is not a JSON object: export it again")
    return facts
