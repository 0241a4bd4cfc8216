"""A network's weights with their facts, in memory and on disk.

On disk a checkpoint is a folder with two files: `backbone_fpn.safetensors` (`backbone.safetensors` without a pyramid),
which has tensors under canonical names and the facts in its metadata, so that the file alone is enough; and
`facts.json`, the same facts for people and tools.
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
from .facts import checked_facts
from .fingerprint import fingerprint
from .recognition import identify
from .safe_reading import facts_in, read_file
from .timm_folder import TIMM_CONFIG_FILE, TIMM_FILES, timm_facts

WEIGHTS_FILE = "backbone_fpn.safetensors"
BACKBONE_FILE = "backbone.safetensors"
"""Name of the same file where it contains no pyramid."""

WEIGHTS_FILES = (WEIGHTS_FILE, BACKBONE_FILE)
FACTS_FILE = "facts.json"
METADATA_KEY = "ccop"
"""Key of the safetensors metadata that contains the facts as JSON."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """One set of weights, wherever it came from.

    Attributes:
        name: what a result table calls it (a registry name, a path, `hf-hub:...` or `random`).
        arch: timm name of the backbone.
        tensors: canonical name -> tensor (CPU); `backbone.*`, and `fpn.*` where the source had a pyramid.
        facts: what is known of them (objective, data set, steps, input mean/std, ...); empty if nothing is.
        digest: `sha256:` + hex digest of the file, or of the tensors if there is no file.
        source: path or address that they were read from; `random` for an untrained network.
        format: the naming scheme found in the source (`canonical`, `torchvision`, `timm`, `detectron2`, ...).
        unused: names, as the source has them, of tensors in neither part (heads, queues, ...).
        taken: where in a checkpoint file the network was found: keys, and the prefix of its names.
        others: where in it further whole networks are, such as a key encoder.
    """

    name: str
    arch: str
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    digest: str
    source: str
    format: str
    unused: tuple[str, ...] = ()
    taken: str = ""
    others: tuple[str, ...] = ()

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors of one part (`backbone` or `fpn`) with the prefix removed."""
        return {key[len(prefix) + 1 :]: value for key, value in self.tensors.items() if key.startswith(prefix + ".")}

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts present, in order: `("backbone",)` or `("backbone", "fpn")`."""
        return tuple(part for part in ("backbone", "fpn") if any(key.startswith(part + ".") for key in self.tensors))


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write tensors (canonical names) and facts into `folder`, each file atomically; returns the safetensors file.

    The fingerprint of the network is added to the facts, and to those of `facts.json` the weights' digest as well (a
    file cannot hold its own).

    Args:
        folder: made if it is not there.
        tensors: canonical name -> tensor.
        facts: ready for JSON; `arch`, the timm name of the backbone, is required.
    """
    make_folder(folder)
    facts = {**facts, "fingerprint": fingerprint(facts["arch"], tensors)}
    contiguous = {key: value.detach().cpu().contiguous() for key, value in sorted(tensors.items())}
    # One entry of metadata: safetensors writes several in a random order, and equal checkpoints are to be equal bytes.
    blob = save(contiguous, metadata={METADATA_KEY: json.dumps(facts, sort_keys=True)})
    file = folder / (WEIGHTS_FILE if any(name.startswith("fpn.") for name in tensors) else BACKBONE_FILE)
    write_atomically(file, blob)
    recorded = {**facts, "digest": bytes_digest(blob), "file": file.name}
    write_atomically(folder / FACTS_FILE, json.dumps(recorded, indent=2, sort_keys=True) + "\n")
    for name in WEIGHTS_FILES:
        if name != file.name:
            (folder / name).unlink(missing_ok=True)
    return file


def read_checkpoint(path: Path) -> Weights:
    """Read a checkpoint from disk.

    Args:
        path: a folder that `save_checkpoint` wrote, a run's folder (its `exported/` is read), a timm folder
            (`config.json` and `model.safetensors`), or one weights file in any format that is
            recognised.

    Raises:
        UserError: nothing there, nothing readable there, or tensors that are not a ResNet of a known format.
    """
    file = find_weights_file(path)
    contents = read_file(file)
    facts = checked_facts(facts_in(contents.metadata, METADATA_KEY, file), file)
    config = file.with_name(TIMM_CONFIG_FILE)
    shown = timm_facts(config) if file.name in TIMM_FILES and config.is_file() else None
    facts = {**(shown or {}), **facts}
    try:
        found = identify(contents.tree, facts.get("arch"))
    except UserError as error:
        error.args = (f"{file}: {error}",)
        raise
    return Weights(
        name=str(path),
        arch=found.arch,
        # Tensors of a PyTorch file are views of it, and the file may change.
        tensors={name: value.clone() for name, value in found.tensors.items()},
        facts={"input": INPUT_FACTS, **found.facts, **facts, "arch": found.arch},
        digest=file_digest(file),
        source=str(file),
        format="timm" if shown is not None else found.format,
        unused=found.unused,
        taken=found.taken,
        others=found.others,
    )


def find_weights_file(path: Path) -> Path:
    """The weights file that a path stands for: itself, or the one in a checkpoint's, a run's or timm's folder.

    Raises:
        UserError: there is none.
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
    raise UserError(
        f"{path} contains no {WEIGHTS_FILE}, and neither does its exported/: give a checkpoint file or a run folder"
    )


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """`sha256:` + hex digest of names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return f"sha256:{digest.hexdigest()}"
