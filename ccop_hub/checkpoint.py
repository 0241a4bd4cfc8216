"""A network's weights with their facts, in memory and on disk.

On disk a checkpoint is a folder with two files: `backbone_fpn.safetensors`, tensors under canonical names with the
facts in its metadata (so that the file alone is enough), and `facts.json`, the same facts for people and tools.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

WEIGHTS_FILE = "backbone_fpn.safetensors"
FACTS_FILE = "facts.json"
METADATA_KEY = "ccop"
"""Key of the safetensors metadata that holds the facts as JSON."""


@dataclasses.dataclass(frozen=True)
class Weights:
    """One set of weights, wherever it came from.

    Attributes:
        name: what a result table calls it (a registry name, a path, `hf-hub:...` or `random`).
        arch: timm name of the backbone.
        tensors: canonical name -> tensor (CPU); `backbone.*`, and `fpn.*` where the source had a pyramid.
        facts: what is known of them (objective, data set, steps, input mean/std, ...); empty if nothing is.
        digest: `sha256:` + hex digest of the file, or of the tensors where there is no file.
        source: path or address that they were read from; `random` for an untrained network.
        format: the naming scheme found in the source (`canonical`, `torchvision`, `timm`, `detectron2`, ...).
    """

    name: str
    arch: str
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    digest: str
    source: str
    format: str

    def part(self, prefix: str) -> dict[str, Tensor]:
        """Tensors of one part (`backbone` or `fpn`) with the prefix removed."""
        return {key[len(prefix) + 1 :]: value for key, value in self.tensors.items() if key.startswith(prefix + ".")}

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts present, in order: `("backbone",)` or `("backbone", "fpn")`."""
        return tuple(part for part in ("backbone", "fpn") if any(key.startswith(part + ".") for key in self.tensors))


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Write tensors (canonical names) and facts into `folder`, each file atomically; returns the safetensors file.

    The weights' digest is added to the facts of `facts.json` (a file cannot hold its own digest).
    """
    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {key: value.detach().cpu().contiguous() for key, value in sorted(tensors.items())}
    blob = save(contiguous, metadata={"format": "pt", METADATA_KEY: json.dumps(facts, sort_keys=True)})
    write_atomically(folder / WEIGHTS_FILE, blob)
    recorded = {**facts, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "file": WEIGHTS_FILE}
    write_atomically(folder / FACTS_FILE, (json.dumps(recorded, indent=2, sort_keys=True) + "\n").encode())
    return folder / WEIGHTS_FILE


def write_atomically(path: Path, content: bytes) -> None:
    """Write to a temporary name beside `path`, then move it there: a reader sees the old file or the new one, whole."""
    temporary = path.with_name(f".{path.name}.partial")
    temporary.write_bytes(content)
    temporary.replace(path)
