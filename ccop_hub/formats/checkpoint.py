"""Weights and their facts, in memory and on disk.

`weights_files` describes the files of a checkpoint folder.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ..errors import UserError
from ..files import bytes_digest, file_digest, make_folder, write_atomically
from ..normalization import INPUT_FACTS
from .recognition import identify
from .safe_reading import read_file
from .weight_set import WeightSet
from .weights_files import (
    BACKBONE_FILE,
    FACTS_FILE,
    METADATA_KEY,
    WEIGHTS_FILE,
    WEIGHTS_FILES,
    find_weights_file,
    stored_facts,
)


@dataclasses.dataclass(frozen=True)
class Weights(WeightSet[Tensor]):
    """A set of weights from any source; `tensors` maps canonical names to tensors on the CPU."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors of one part (`backbone` or `fpn`), with the prefix removed."""
        return {key[len(prefix) + 1 :]: value for key, value in self.tensors.items() if key.startswith(prefix + ".")}


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write tensors and facts to `folder`, each file atomically; return the path of the safetensors file.

    Adds the network's fingerprint to the facts. `facts.json` also records the digest of the weights file, which cannot
    contain its own.

    Args:
        folder: output folder; created if missing.
        tensors: canonical name -> tensor.
        facts: JSON-serialisable facts; must include `arch`, the timm name of the backbone.

    Raises:
        UserError: the network's features of a fixed input are not finite.
    """
    from .fingerprint import fingerprint  # imports timm and torchvision

    facts = {**facts, "fingerprint": fingerprint(facts["arch"], tensors)}
    make_folder(folder)
    contiguous = {key: value.detach().cpu().contiguous() for key, value in sorted(tensors.items())}
    # Use a single metadata entry: safetensors writes several in random order, but output must be deterministic.
    blob = save(contiguous, metadata={METADATA_KEY: json.dumps(facts, sort_keys=True)})
    file = folder / (WEIGHTS_FILE if any(name.startswith("fpn.") for name in tensors) else BACKBONE_FILE)
    write_atomically(file, blob)
    recorded = {**facts, "digest": bytes_digest(blob), "file": file.name}
    write_atomically(folder / FACTS_FILE, json.dumps(recorded, indent=2, sort_keys=True) + "\n")
    for name in WEIGHTS_FILES:
        if name != file.name:
            (folder / name).unlink(missing_ok=True)
    return file


def read_checkpoint(path: Path, arch: str | None = None) -> Weights:
    """Read a checkpoint from disk.

    Args:
        path: a folder written by `save_checkpoint`, a run folder (reads its `exported/`), a timm folder (`config.json`
            and `model.safetensors`), or a weights file in any recognised format.
        arch: timm name of the backbone, for files that do not state it; plain ResNets are recognised without it.

    Raises:
        UserError: the path does not exist, is unreadable, or does not contain a backbone in a known format.
    """
    file = find_weights_file(path)
    contents = read_file(file)
    facts, is_timm = stored_facts(file, contents.metadata)
    try:
        found = identify(contents.tree, facts.get("arch", arch))
    except UserError as error:
        error.args = (f"{file}: {error}",)
        raise
    return Weights(
        name=str(path),
        arch=found.arch,
        # Tensors of a PyTorch file are views of the memory-mapped file, which may change.
        tensors={name: value.clone() for name, value in found.tensors.items()},
        facts={"input": INPUT_FACTS, **found.facts, **facts, "arch": found.arch},
        digest=file_digest(file),
        source=str(file),
        format="timm" if is_timm else found.format,
        unused=found.unused,
        taken=found.taken,
        others=found.others,
    )


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return `sha256:` + hex digest of the names, types, shapes and values, sorted by name."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"
