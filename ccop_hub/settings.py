"""Settings of every command of `ccop-hub`; nothing here imports torch, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .validation import Validated

Format = Literal["safetensors", "torchvision", "timm", "detectron2", "detectron2-c4", "mmdetection"]
"""Formats that `convert` writes; see `ccop_hub.formats.conversion`."""


@dataclass(frozen=True)
class ListSettings(Validated):
    """List the published weights: name, backbone, objective, data, epochs and reported results."""


@dataclass(frozen=True)
class InfoSettings(Validated):
    """Describe a set of weights: source, digest, format, tensors per stage, parameters, FLOPs, how to load it.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION], https address, or random.
        backbone: name of a timm ResNet; needed only for random weights.
    """

    weights: str
    backbone: str | None = None


@dataclass(frozen=True)
class ConvertSettings(Validated):
    """Write weights in another library's format, then read them back and compare tensors and features.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION], https address, or random.
        to: safetensors (a folder), torchvision (.pth), timm (a folder), detectron2 (.pkl or .pth), detectron2-c4 (.pkl
            or .pth) or mmdetection (.pth).
        out: file or folder to write.
        backbone: name of a timm ResNet; needed only for random weights.
        overwrite: replace files that exist.
    """

    weights: str
    to: Format
    out: Path
    backbone: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class VerifySettings(Validated):
    """Recompute digests, check shapes and finiteness, and compare features with the fingerprint of the export.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION] or https address.
    """

    weights: str


@dataclass(frozen=True)
class PublishSettings(Validated):
    """Push an exported network to the Hugging Face Hub, with a model card, in every format that people load.

    Args:
        run: folder of a run or of an exported checkpoint.
        repo: ORG/NAME on the Hub.
        private: make a newly created repository visible only to you.
        dry_run: write the same files to a folder and push nothing.
        out: folder of the dry run; RUN/published by default.
        results: result.json files of ccop-eval to include in the card.
        licence: SPDX identifier of the weights' licence. Default: that of their origin, or apache-2.0 for own runs.
        revision: branch to push to.
    """

    run: Path
    repo: str
    private: bool = False
    dry_run: bool = False
    out: Path | None = None
    results: list[Path] = field(default_factory=list)
    licence: str | None = None
    revision: str = "main"
