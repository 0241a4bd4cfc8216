"""Write weights in the formats of other libraries; each file is read back and compared before it is kept."""

from __future__ import annotations

import dataclasses
import filecmp
import json
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save
from torch import Tensor

from ..errors import UserError
from ..files import make_folder, replacing, scratch_folder, write_atomically
from ..locks import discard_abandoned_lock, output_lock
from ..plain_resnets import COUNTER
from .checkpoint import Weights, read_checkpoint, save_checkpoint
from .detectron2_config import detectron2_c4_config, detectron2_config
from .fingerprint import features
from .names import from_canonical
from .timm_folder import TIMM_CONFIG_FILE, TIMM_WEIGHTS_FILE, timm_config
from .weights_files import WEIGHTS_FILES

AUTHOR = "ccop-hub"

FEATURE_TOLERANCE = 1e-5
"""Maximum difference of any feature after conversion; 0 for the same tensors in the same network."""


@dataclasses.dataclass(frozen=True)
class Converted:
    """Result of a conversion.

    Attributes:
        path: output file or folder.
        tensors: number of tensors written.
        left_out: parts of the weights that the format does not support.
        largest_difference: maximum difference of any feature between the weights and the output.
        config: configuration file written next to the output, for libraries that need one to build the same network.
    """

    path: Path
    tensors: int
    left_out: tuple[str, ...]
    largest_difference: float
    config: Path | None = None


@dataclasses.dataclass(frozen=True)
class Target:
    """An output format.

    Attributes:
        title: display name of the format.
        scheme: naming scheme.
        parts: supported parts.
        suffixes: allowed file suffixes; empty for a folder.
        write: writes tensors (under the scheme's names) and facts to a path; returns the weights file.
        counters: whether the format stores the batch counters of BN layers.
        config: builds the text of the accompanying configuration file from the weights, the parts written and the path.
    """

    title: str
    scheme: str
    parts: tuple[str, ...]
    suffixes: tuple[str, ...]
    write: Callable[[Path, Mapping[str, Tensor], Weights], Path]
    counters: bool = True
    config: Callable[[Weights, tuple[str, ...], Path], str] | None = None


def convert(weights: Weights, target: str, out: Path, overwrite: bool = False) -> Converted:
    """Write weights in another format.

    The output is read back and compared, tensor by tensor and by the features of a fixed input, before it is moved to
    `out`.

    Args:
        weights: weights to convert.
        target: one of `TARGETS`.
        out: output file or folder, depending on the target.
        overwrite: replace existing files.

    Raises:
        UserError: the target is unknown, does not support the file suffix, the file exists, another process is writing
            it, or the output differs.
    """
    chosen = require_target(target, out, overwrite)
    parts = tuple(part for part in weights.parts if part in chosen.parts)
    named = from_canonical(weights.tensors, chosen.scheme, parts, arch=weights.arch)
    if not chosen.counters:
        named = {name: value for name, value in named.items() if not name.endswith(COUNTER)}
    make_folder(out.parent)
    with output_lock(out), scratch_folder(out) as scratch:
        written = scratch / out.name
        file = chosen.write(written, {name: value.contiguous() for name, value in named.items()}, weights)
        difference = _compare(weights, parts, file, out, chosen.counters)
        config = out.with_suffix(".yaml") if chosen.config is not None else None
        if config is not None and chosen.config is not None:
            write_atomically(scratch / config.name, chosen.config(weights, parts, out))
        _move(scratch, written, out, overwrite)
    left_out = tuple(part for part in weights.parts if part not in parts)
    return Converted(out, len(named), left_out, difference, config)


def require_target(target: str, out: Path, overwrite: bool = False) -> Target:
    """Look up a target and check that it can be written to `out`; see `convert` for arguments and errors.

    Reads and downloads nothing, so call it before fetching the weights.
    """
    if target not in TARGETS:
        raise UserError(f"cannot write format {target!r}: use one of {', '.join(TARGETS)}")
    chosen = TARGETS[target]
    if chosen.suffixes:
        require_file(target, out, chosen.suffixes, overwrite)
    if not chosen.suffixes and out.suffix in _FILE_SUFFIXES:
        raise UserError(f"{target} is written as a folder: remove {out.suffix} from {out.name}")
    if not chosen.suffixes and out.is_file():
        raise UserError(f"{out} is a file, but {target} is written as a folder: give another path")
    return chosen


def require_file(target: str, out: Path, suffixes: tuple[str, ...], overwrite: bool) -> None:
    """Check that a format that is one file can be written to `out`.

    Raises:
        UserError: the suffix is wrong, the file exists, or `out` is a folder.
    """
    if out.is_file() and not overwrite:
        discard_abandoned_lock(out)
        raise UserError(f"{out} exists: pass --overwrite to replace it, or another --out")
    if out.suffix not in suffixes:
        raise UserError(f"{target} needs an output file ending in {' or '.join(suffixes)}: rename {out.name}")
    if out.is_dir():
        raise UserError(f"{out} is a folder, but {target} is written as a file: give another path")


def _move(scratch: Path, written: Path, out: Path, overwrite: bool) -> None:
    """Move finished files from the scratch folder to their destination: all of them, or none if one exists.

    What a killed conversion has already moved does not count: some of the same files, but not all.
    """
    if written.is_dir():
        moves = {path: out / path.name for path in sorted(written.iterdir())}
    else:
        # The weights last, since their file decides whether a conversion is finished.
        moves = {path: out.with_name(path.name) for path in sorted(scratch.iterdir(), key=lambda path: path == written)}
    existing = [target for target in moves.values() if target.exists()]
    unfinished = len(existing) < len(moves) and all(
        target not in existing or filecmp.cmp(source, target, shallow=False) for source, target in moves.items()
    )
    if existing and not overwrite and not unfinished:
        raise UserError(f"{existing[0]} exists: pass --overwrite to replace it, or another --out")
    if written.is_dir():
        make_folder(out)
        if set(WEIGHTS_FILES) & {path.name for path in moves}:
            moves_to = {target.name for target in moves.values()}
            for name in set(WEIGHTS_FILES) - moves_to:
                (out / name).unlink(missing_ok=True)
    for source, target in moves.items():
        source.replace(target)


def _compare(weights: Weights, parts: tuple[str, ...], file: Path, out: Path, counters: bool) -> float:
    """Check that all tensors are equal; return the maximum difference of any feature."""
    found = read_checkpoint(file)
    expected = {name: value for name, value in weights.tensors.items() if name.split(".", 1)[0] in parts}
    differing = [
        name
        for name in expected.keys() | found.tensors.keys()
        if (counters or not name.endswith(COUNTER)) and not _are_equal(expected.get(name), found.tensors.get(name))
    ]
    if differing or found.arch != weights.arch:
        raise UserError(f"{out} differs when read back ({', '.join(sorted(differing)[:5])}): check the disk")
    before, after = features(weights.arch, expected), features(found.arch, found.tensors)
    largest = max(float((before[name] - after[name]).abs().max()) for name in before)
    if not largest <= FEATURE_TOLERANCE:
        raise UserError(f"the features of the converted network differ by {largest:.2g}: {out} was not written")
    return largest


def _are_equal(one: Tensor | None, other: Tensor | None) -> bool:
    return one is not None and other is not None and torch.equal(one, other)


def _write_canonical(path: Path, tensors: Mapping[str, Tensor], weights: Weights) -> Path:
    return save_checkpoint(path, tensors, {**weights.facts, "arch": weights.arch})


def _write_timm(path: Path, tensors: Mapping[str, Tensor], weights: Weights) -> Path:
    make_folder(path)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        whole = timm.create_model(weights.arch, pretrained=False, num_classes=0)
    # timm loads strictly: layers after the last stage, which have no trained values, keep their initial ones.
    stored = {name: value.contiguous() for name, value in {**whole.state_dict(), **tensors}.items()}
    write_atomically(path / TIMM_WEIGHTS_FILE, save(stored, metadata={"format": "pt"}))
    config = timm_config(weights.arch, whole.num_features, weights.facts)
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
    "detectron2": Target(
        "Detectron2 with feature pyramid",
        "detectron2",
        _BOTH,
        (".pkl", ".pth"),
        _write_detectron2,
        counters=False,
        config=detectron2_config,
    ),
    "detectron2-c4": Target(
        "Detectron2 C4",
        "detectron2-c4",
        ("backbone",),
        (".pkl", ".pth"),
        _write_detectron2,
        counters=False,
        config=detectron2_c4_config,
    ),
    "mmdetection": Target("mmdetection", "mmdetection", _BOTH, (".pth",), _write_mmdetection),
}
"""Name for `--to` -> format."""

_FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".pkl", ".bin", ".onnx")
