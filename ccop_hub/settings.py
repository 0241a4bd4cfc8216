"""Settings of every command of `ccop-hub`; nothing here imports torch, so that `--help` is fast."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from .errors import UserError
from .limits import DEFAULT_WORKERS, MAX_PIXELS
from .validation import Ge, NonNegativeInt, PositiveInt, Seed, Share, Validated

Format = Literal["safetensors", "torchvision", "timm", "detectron2", "detectron2-c4", "mmdetection", "onnx"]
"""Formats that `convert` writes; see `ccop_hub.formats.conversion` and `ccop_hub.formats.onnx_file`."""

OnnxOutput = Literal["pooled", "res2", "res3", "res4", "res5", "p2", "p3", "p4", "p5", "p6"]
"""Outputs of an ONNX model."""

FeatureLevel = Literal["pooled", "res2", "res3", "res4", "res5", "stages", "p2", "p3", "p4", "p5", "p6", "pyramid"]
"""Features that `embed` computes."""

Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
"""Where to compute; `auto` uses a GPU if there is one."""


@dataclass(frozen=True)
class ListSettings(Validated):
    """List published weights with backbone, objective, data, epochs and reported results."""


@dataclass(frozen=True)
class InfoSettings(Validated):
    """Describe weights: source, digest, format, tensors per stage, parameters, FLOPs, and how to load them.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION], https address, or random.
        backbone: timm name of the backbone; needed only for random weights.
    """

    weights: str
    backbone: str | None = None


@dataclass(frozen=True)
class ConvertSettings(Validated):
    """Convert weights to another library's format, then read them back and compare tensors and features.

    Args:
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION], https address, or random.
        to: target format: `safetensors` (a folder), `torchvision` (.pth), `timm` (a folder), `detectron2` (.pkl or
            .pth), `detectron2-c4` (.pkl or .pth), `mmdetection` (.pth) or `onnx` (.onnx, compared in ONNX Runtime).
        out: file or folder to write.
        backbone: timm name of the backbone; needed only for random weights.
        outputs: only for `onnx`: outputs of the model, `pooled`, `res2` to `res5` and `p2` to `p6`; all by default.
        overwrite: replace existing files.
    """

    weights: str
    to: Format
    out: Path
    backbone: str | None = None
    outputs: list[OnnxOutput] = field(default_factory=list)
    overwrite: bool = False

    def check_together(self) -> None:
        """Reject outputs for a format that stores a whole network."""
        if self.outputs and self.to != "onnx":
            raise UserError(f"--outputs chooses outputs of an ONNX model: use --to onnx, not {self.to}, or remove it")


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


@dataclass(frozen=True)
class EmbedSettings(Validated):
    """Compute a feature vector for each image, or for each box, and write them with their names to a file.

    Args:
        images: folder of images (recursive) or of tar shards, list of paths (.txt), pattern of tar shards, COCO JSON,
            or folder of a COCO data set.
        weights: registry name, file or folder, hf-hub:ORG/NAME[@REVISION], https address, or random.
        out: file to write: .npy (with a .rows.csv of names), .npz or .parquet.
        features: `pooled` (the backbone's last stage), another stage (`res2` to `res5`), a level of the feature pyramid
            (`p2` to `p6`), each averaged over the image or box; `stages` (all stages, each normalised, in a row); or
            `pyramid` (for each box, the level that fits its size).
        boxes: COCO JSON of boxes, or folder written by `ccop-pretrain proposals`; gives one row per box, by RoIAlign.
        resize: `crop` (the central square), `square` (the whole image, distorted) or `short-side` (the whole image);
            `crop` by default, `short-side` with boxes.
        image_size: side in pixels of the square, or of the shorter side; 224 by default, 480 for `short-side`.
        batch_size: images per forward pass.
        workers: processes that read images; 0 reads them in the main process. Does not affect the result.
        accelerator: `auto` (a GPU if there is one), `cpu`, `gpu`, `cuda` or `mps`.
        backbone: timm name of the backbone; needed only for random weights.
        seed: seed of random weights.
        max_pixels: largest images to read, as width x height.
        max_unreadable: stop if more than this fraction of the images is unreadable or too large.
        overwrite: replace existing files.
    """

    images: Path
    weights: str
    out: Path
    _: KW_ONLY
    features: FeatureLevel = "pooled"
    boxes: Path | None = None
    resize: Literal["crop", "square", "short-side"] | None = None
    image_size: Annotated[int, Ge(32)] | None = None
    batch_size: PositiveInt = 64
    workers: NonNegativeInt = DEFAULT_WORKERS
    accelerator: Accelerator = "auto"
    backbone: str | None = None
    seed: Seed = 0
    max_pixels: PositiveInt = MAX_PIXELS
    max_unreadable: Share = 0.01
    overwrite: bool = False

    @property
    def resize_mode(self) -> Literal["crop", "square", "short-side"]:
        """How images are resized."""
        return self.resize or ("crop" if self.boxes is None else "short-side")

    @property
    def side(self) -> int:
        """Side of the square, or length of the shorter side, in pixels."""
        return self.image_size or (480 if self.resize_mode == "short-side" else 224)

    def check_together(self) -> None:
        """Reject boxes of a cropped image, and a level per box without boxes."""
        if self.boxes is not None and self.resize == "crop":
            raise UserError("--resize crop would cut off boxes: use --resize short-side or square with --boxes")
        if self.boxes is None and self.features == "pyramid":
            raise UserError("--features pyramid chooses a level for each box: give --boxes, or one level such as p4")
