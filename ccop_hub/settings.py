"""Settings of every command of `ccop-hub`; nothing here imports torch, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ListSettings:
    """Print the registry of published weights as a table."""


@dataclass(frozen=True)
class InfoSettings:
    """Say what a set of weights is: source, digest, format, tensors by stage, parameters, FLOPs, how to load it.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION], https address, or random.
        backbone: timm name of the backbone; needed only for random weights.
    """

    weights: str
    backbone: str | None = None


@dataclass(frozen=True)
class ConvertSettings:
    """Write weights in another library's format, read them back and compare tensors and features.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION], https address, or random.
        to: safetensors (a folder), torchvision (.pth), timm (a folder), detectron2 (.pkl or .pth), detectron2-c4 (.pkl
            or .pth) or mmdetection (.pth).
        out: file or folder to write.
        backbone: timm name of the backbone; needed only for random weights.
    """

    weights: str
    to: str
    out: Path
    backbone: str | None = None


@dataclass(frozen=True)
class VerifySettings:
    """Recompute digests, check shapes and finiteness, and compare features with the fingerprint of the export.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION] or https address.
    """

    weights: str


@dataclass(frozen=True)
class PublishSettings:
    """Push an exported network to the Hugging Face Hub, with a model card, in every format that people load.

    Args:
        run: folder of a run, or of an exported checkpoint.
        repo: ORG/NAME on the Hub.
        private: whether only you may see a repository that is created.
        dry_run: write the same files to a folder and push nothing.
        out: folder of the dry run; RUN/published if not given.
        results: result.json files of ccop-eval to put into the card.
        licence: SPDX id of the weights' licence, as the Hub spells it (lower case).
        revision: branch to push to.
    """

    run: Path
    repo: str
    private: bool = False
    dry_run: bool = False
    out: Path | None = None
    results: list[Path] = field(default_factory=list)
    licence: str = "apache-2.0"
    revision: str = "main"
