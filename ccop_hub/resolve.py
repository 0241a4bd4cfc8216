"""The one place that decides where weights come from."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from . import registry
from .architectures import HUB_ARCHITECTURES, build_resnet_fpn
from .checkpoint import Weights, read_checkpoint, tensors_digest
from .errors import UserError
from .formats import identify
from .normalization import INPUT_FACTS

RANDOM = "random"
HF_PREFIX = "hf-hub:"


def resolve(weights: str | Path | Mapping[str, Tensor], arch: str | None = None, seed: int = 0) -> Weights:
    """Find weights, whatever way they are named.

    A string is tried in this order: `random`; `hf-hub:org/name[@revision]`; an `https://` address; a name of the
    registry; a file or folder on disk.

    Args:
        weights: as above, or a state dict in any format that `formats` reads.
        arch: timm name of the backbone that the caller will build; needed for `random`.
        seed: of the initial weights of `random`, which depend on `arch` and this alone.

    Raises:
        UserError: nothing of that name, not readable, or another architecture than `arch`. Says what to do.
    """
    found = _find(weights, arch, seed)
    if arch is not None and found.arch != arch:
        raise UserError(f"{found.name} is a {found.arch}, not a {arch}: ask for {found.arch} or give other weights")
    return found


def _find(weights: str | Path | Mapping[str, Tensor], arch: str | None, seed: int) -> Weights:
    if isinstance(weights, Mapping):
        return _from_state_dict(weights, arch)
    name = str(weights)
    if name == RANDOM:
        return _random(arch, seed)
    if name in registry.REGISTRY:
        raise UserError(f"{name} can not be downloaded yet: download {registry.REGISTRY[name].url} and give its path")
    path = Path(name).expanduser()
    if path.exists():
        return read_checkpoint(path)
    raise UserError(
        f"no weights at {name!r}: give a registry name ({', '.join(registry.REGISTRY)}), a file or folder, "
        f"hf-hub:ORG/NAME[@REVISION], or {RANDOM}"
    )


def _random(arch: str | None, seed: int) -> Weights:
    if arch is None:
        raise UserError(f"random weights need an architecture: name one, such as {', '.join(HUB_ARCHITECTURES)}")
    tensors = build_resnet_fpn(arch, seed).state_dict()
    facts = {
        "arch": arch,
        "objective": RANDOM,
        "parts": ["backbone", "fpn"],
        "seed": seed,
        "input": INPUT_FACTS,
        "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
    }
    return Weights(RANDOM, arch, tensors, facts, tensors_digest(tensors), RANDOM, "canonical")


def _from_state_dict(state: Mapping[str, Tensor], arch: str | None) -> Weights:
    found = identify(state, arch)
    facts = {"arch": found.arch, "input": INPUT_FACTS}
    digest = tensors_digest(found.tensors)
    return Weights("state dict", found.arch, found.tensors, facts, digest, "state dict", found.format, found.unused)
