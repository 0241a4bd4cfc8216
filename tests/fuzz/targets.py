"""What is fuzzed: readers of files that others made, and small sound files to start from, drawn by code."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ccop_pretrain.proposals.store import ProposalStore
from safetensors.torch import save

from ccop_hub.coco.json_stream import stream_entries
from ccop_hub.errors import UserError
from ccop_hub.formats.safe_reading import read_file


@dataclass(frozen=True)
class Target:
    """A reader that may refuse any bytes by a `UserError`, and may do nothing else.

    Attributes:
        read: reads the file at a path.
        seeds: sound files.
        name: of the file.
    """

    read: Callable[[Path], object]
    seeds: Callable[[], list[bytes]]
    name: str = "input"

    def try_bytes(self, data: bytes, folder: Path) -> None:
        """Read a file of these bytes in `folder`; a refusal must be one line."""
        path = folder / self.name
        path.write_bytes(data)
        told = ""
        try:
            self.read(path)
        except UserError as error:
            told = str(error)
        if "\n" in told or len(told) > 2000:
            raise AssertionError(f"not one line: {told!r}")


def _checkpoints() -> list[bytes]:
    tensors = {"a.weight": torch.zeros(2, 3), "a.count": torch.tensor(1)}
    made = [save(tensors, {"ccop": "{}"}), pickle.dumps({"a": np.zeros(2, np.float32)}, protocol=2)]
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save({"state_dict": tensors, "epoch": 1}, buffer, _use_new_zipfile_serialization=zipped)
        made.append(buffer.getvalue())
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return [*made, buffer.getvalue()]


def _coco() -> list[bytes]:
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 4, "height": 3}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 2, 2], "segmentation": [[0, 0, 1, 1]]}
        ],
        "categories": [{"id": 1, "name": "thing"}],
    }
    text = json.dumps(document)
    return [text.encode(), text.encode("utf-16"), text.replace("3", "NaN").encode("utf-8-sig")]


def _read_coco(path: Path) -> Iterator[object] | None:
    for _ in stream_entries(path, ["images", "annotations", "categories"]):
        pass
    return None


def _manifests() -> list[bytes]:
    settings = {"mode": "fast", "keep": 10}
    digest = "0" * 64
    facts = {
        "root": "a",
        "images": 2,
        "listing": digest,
        "settings": settings,
        "settings_digest": digest,
        "versions": {"numpy": "2"},
        "complete": True,
        "format_version": 1,
    }
    return [json.dumps(facts).encode()]


TARGETS = {
    "checkpoint": Target(read_file, _checkpoints),
    "coco": Target(_read_coco, _coco, "input.json"),
    "proposals": Target(lambda path: ProposalStore.open(path.parent), _manifests, "manifest.json"),
}
