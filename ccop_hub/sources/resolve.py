"""Resolve a name, path or URL to weights."""

from __future__ import annotations

import dataclasses
import logging
import platform
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..errors import UserError
from ..formats.checkpoint import Weights, read_checkpoint, tensors_digest
from ..formats.facts import in_rgb_order
from ..formats.recognition import identify
from ..normalization import INPUT_FACTS
from ..plain_resnets import HUB_ARCHITECTURES, PLAIN_RESNETS
from ..redaction import redact
from . import registry
from .location import RANDOM as RANDOM
from .location import locate as locate

logger = logging.getLogger(__name__)


def resolve(weights: str | Path | Mapping[str, Tensor], arch: str | None = None, seed: int = 0) -> Weights:
    """Load weights from any source.

    Interpreted, in order, as: a state dict; `random`; a registry name; `hf-hub:org/name[@revision]`; an `https://` URL;
    a file or folder. (Write `./NAME` for a file with the same name as a registry entry.)

    Args:
        weights: the source, as above. A state dict may have any recognised format.
        arch: timm name of the backbone that the caller will build; required for `random`.
        seed: seed of `random` weights, which depend only on `arch` and the seed.

    Raises:
        UserError: the weights do not exist, are unreadable, have the wrong digest, or belong to another architecture
            than `arch`. The message says what to do.
    """
    if arch is not None and arch not in PLAIN_RESNETS:
        from ..architectures import empty_backbone  # timm and torchvision take seconds to import

        empty_backbone(arch)  # reject an invalid name before downloading anything
    found = in_rgb(_find(weights, arch, seed))
    if arch is not None and found.arch != arch:
        raise UserError(f"{found.name} is a {found.arch}, not a {arch}: request {found.arch} or give other weights")
    return found


def in_rgb(weights: Weights) -> Weights:
    """Convert weights to RGB input: flip the stem's input channels if the network was trained on BGR images."""
    if weights.facts["input"]["channel_order"] == "RGB":
        return weights
    if weights.facts.get("stride_in_1x1"):
        logger.warning(
            "%s was trained with strides on 1x1 convolutions; here they are on the 3x3 ones, so its features differ",
            weights.name,
        )
    stem = next(
        name
        for name, value in weights.tensors.items()
        if name.startswith("backbone.") and value.ndim == 4 and value.shape[1] == 3
    )
    tensors = {**weights.tensors, stem: weights.tensors[stem].flip(1).contiguous()}
    return dataclasses.replace(weights, tensors=tensors, facts=in_rgb_order(weights.facts))


def _find(weights: str | Path | Mapping[str, Tensor], arch: str | None, seed: int) -> Weights:
    if isinstance(weights, Mapping):
        return _from_state_dict(weights, arch)
    name = str(weights)
    if name == RANDOM:
        return _random(arch, seed)
    stated = None if arch in PLAIN_RESNETS else arch
    found = dataclasses.replace(read_checkpoint(locate(name), stated), name=redact(name))
    return _as_published(name, found) if name in registry.REGISTRY else found


def _as_published(name: str, found: Weights) -> Weights:
    entry = registry.entry(name)
    if found.arch != entry.arch or found.format not in entry.formats:
        raise UserError(f"{found.source} is a {found.arch} in {found.format} format, which is not {name}: delete it")
    return dataclasses.replace(found, facts={**found.facts, **entry.facts()})


def _random(arch: str | None, seed: int) -> Weights:
    if arch is None:
        raise UserError(f"random weights need an architecture: give one, such as {', '.join(HUB_ARCHITECTURES)}")
    from ..architectures import build_resnet_fpn

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
    return Weights(
        name="state dict",
        arch=found.arch,
        tensors=found.tensors,
        facts={"input": INPUT_FACTS, **found.facts, "arch": found.arch},
        digest=tensors_digest(found.tensors),
        source="state dict",
        format=found.format,
        unused=found.unused,
        taken=found.taken,
        others=found.others,
    )
