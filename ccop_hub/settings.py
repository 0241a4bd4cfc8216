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
    """List published weights with backbone, objective, data, epochs and reported results."""


@dataclass(frozen=True)
class InfoSettings(Validated):
    """Describe weights: source, digest, format, tensors per stage, parameters, FLOPs, and how to load them.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION], https address, or random.
        backbone: name of a timm ResNet; needed only for random weights.
    """

    weights: str
    backbone: str | None = None


@dataclass(frozen=True)
class ConvertSettings(Validated):
    """Convert weights to another library's format, then read them back and compare tensors and features.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION], https address, or random.
        to: target format: `safetensors` (a folder), `torchvision` (.pth), `timm` (a folder), `detectron2` (.pkl or
            .pth), `detectron2-c4` (.pkl or .pth) or `mmdetection` (.pth).
        out: file or folder to write.
        backbone: name of a timm ResNet; needed only for random weights.
        overwrite: replace existing files.
    """

    weights: str
    to: Format
    out: Path
    backbone: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class VerifySettings(Validated):
    """Verify weights: digest, shapes, finite values, and features compared with the fingerprint of the export.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION] or https address.
    """

    weights: str


@dataclass(frozen=True)
class PublishSettings(Validated):
    """Push an exported network to the Hugging Face Hub, with a model card, for timm, torch.hub and Detectron2.

    Args:
        run: run folder, or folder of an exported network.
        repo: repository on the Hub, as ORG/NAME.
        private: if the repository is created, make it private.
        dry_run: write the files to a folder instead of pushing them.
        out: folder for the dry run; RUN/published by default.
        results: evaluation results (`result.json` files) to include in the model card.
        licence: SPDX identifier of the weights' licence; by default that of the original weights, or apache-2.0 for
            weights trained with this project.
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
