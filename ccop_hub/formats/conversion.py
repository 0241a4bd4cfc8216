"""Weights written in other libraries' formats, each read back and compared before it counts as written."""

from __future__ import annotations

import dataclasses
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from ..architectures import build_backbone
from ..errors import UserError
from ..files import replacing, write_atomically
from .checkpoint import Weights, read_checkpoint, save_checkpoint
from .fingerprint import features
from .names import from_canonical
from .timm_folder import TIMM_CONFIG_FILE, TIMM_WEIGHTS_FILE, timm_config

AUTHOR = "ccop-hub"

FEATURE_TOLERANCE = 1e-5
"""Largest difference of any feature after conversion; the same tensors in the same network give 0."""


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a conversion wrote.

    Attributes:
        path: the file or folder.
        tensors: number of tensors in it.
        left_out: parts of the weights that the format can not hold.
        largest_difference: of any feature between the weights and what was read back.
    """

    path: Path
    tensors: int
    left_out: tuple[str, ...]
    largest_difference: float


@dataclasses.dataclass(frozen=True)
class Target:
    """A format that can be written.

    Attributes:
        title: whose format it is.
        scheme: its naming scheme.
        parts: what it has names for.
        suffixes: file endings it is written with; empty for a folder.
        write: writes tensors (the scheme's names) and facts to a path; returns the weights file.
    """

    title: str
    scheme: str
    parts: tuple[str, ...]
    suffixes: tuple[str, ...]
    write: Callable[[Path, Mapping[str, Tensor], Weights], Path]


def convert(weights: Weights, target: str, out: Path) -> Converted:
    """Write weights in another format, read them back, and compare every tensor and the features on a fixed input.

    Args:
        weights: what to write.
        target: one of `TARGETS`.
        out: file or folder, as the target has it.

    Raises:
        UserError: no such target, a file ending that the target does not have, or a difference after reading back.
    """
    if target not in TARGETS:
        raise UserError(f"no format {target!r} to write: take one of {', '.join(TARGETS)}")
    chosen = TARGETS[target]
    if chosen.suffixes and out.suffix not in chosen.suffixes:
        raise UserError(f"{target} is written to a file ending in {' or '.join(chosen.suffixes)}: rename {out.name}")
    if not chosen.suffixes and out.suffix in _FILE_SUFFIXES:
        raise UserError(f"{target} is written as a folder: leave {out.suffix} out of {out.name}")
    if not chosen.suffixes and out.is_file():
        raise UserError(f"{out} is a file, but {target} is written as a folder: give another path")
    parts = tuple(part for part in weights.parts if part in chosen.parts)
    named = from_canonical(weights.tensors, chosen.scheme, parts, arch=weights.arch)
    out.parent.mkdir(parents=True, exist_ok=True)
    file = chosen.write(out, {name: value.contiguous() for name, value in named.items()}, weights)
    difference = _compare(weights, parts, file)
    left_out = tuple(part for part in weights.parts if part not in parts)
    return Converted(out, len(named), left_out, difference)


def _compare(weights: Weights, parts: tuple[str, ...], file: Path) -> float:
    """The largest difference of a feature, after all tensors were found equal."""
    found = read_checkpoint(file)
    expected = {name: value for name, value in weights.tensors.items() if name.split(".", 1)[0] in parts}
    differing = [
        name
        for name in expected.keys() | found.tensors.keys()
        if name not in expected or name not in found.tensors or not torch.equal(expected[name], found.tensors[name])
    ]
    if differing or found.arch != weights.arch:
        raise UserError(
            f"{file} reads back differently ({', '.join(sorted(differing)[:5])}): check the disk, do not use it"
        )
    before, after = features(weights.arch, expected), features(found.arch, found.tensors)
    largest = max(float((before[name] - after[name]).abs().max()) for name in before)
    if not largest <= FEATURE_TOLERANCE:
        raise UserError(f"the features of {file} differ by {largest:.2g}: do not use it")
    return largest


def _write_canonical(path: Path, tensors: Mapping[str, Tensor], weights: Weights) -> Path:
    return save_checkpoint(path, tensors, {**weights.facts, "arch": weights.arch})


def _write_timm(path: Path, tensors: Mapping[str, Tensor], weights: Weights) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    write_atomically(path / TIMM_WEIGHTS_FILE, save(dict(tensors), metadata={"format": "pt"}))
    with torch.device("meta"):
        channels = build_backbone(weights.arch).num_features
    config = timm_config(weights.arch, channels, weights.facts)
    write_atomically(path / TIMM_CONFIG_FILE, json.dumps(config, indent=2, sort_keys=True) + "\n")
    return path / TIMM_WEIGHTS_FILE


def _write_state_dict(path: Path, tensors: Mapping[str, Tensor], weights: Weights) -> Path:
    return _save_torch(path, dict(tensors))


def _write_mmdetection(path: Path, tensors: Mapping[str, Tensor], weights: Weights) -> Path:
    return _save_torch(path, {"meta": {"author": AUTHOR}, "state_dict": dict(tensors)})


def _write_detectron2(path: Path, tensors: Mapping[str, Tensor], weights: Weights) -> Path:
    about: dict[str, Any] = {"__author__": AUTHOR, "matching_heuristics": False}
    if path.suffix != ".pkl":
        return _save_torch(path, {"model": dict(tensors), **about})
    arrays = {name: value.numpy() for name, value in tensors.items()}
    write_atomically(path, pickle.dumps({"model": arrays, **about}, protocol=4))
    return path


def _save_torch(path: Path, content: dict[str, Any]) -> Path:
    with replacing(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)
    return path


_BOTH = ("backbone", "fpn")

TARGETS = {
    "safetensors": Target("this project", "canonical", _BOTH, (), _write_canonical),
    "torchvision": Target("torchvision", "torchvision", _BOTH, (".pth",), _write_state_dict),
    "timm": Target("timm", "timm", ("backbone",), (), _write_timm),
    "detectron2": Target("Detectron2 with feature pyramid", "detectron2", _BOTH, (".pkl", ".pth"), _write_detectron2),
    "detectron2-c4": Target("Detectron2 C4", "detectron2-c4", ("backbone",), (".pkl", ".pth"), _write_detectron2),
    "mmdetection": Target("mmdetection", "mmdetection", _BOTH, (".pth",), _write_mmdetection),
}
"""Formats by the name that `--to` takes."""

_FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".pkl", ".bin")
