"""Typed settings of every command of `ccop-eval` but detection's; nothing here imports torch.

A setting whose default is None takes the chosen protocol's value; any other value becomes part of the protocol id.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ccop_hub.errors import UserError

_LEAST = {
    "batch_size": 1,
    "checkpoint_every": 1,
    "crop_size": 32,
    "devices": 1,
    "epochs": 1,
    "evaluate_every": 0,
    "image_size": 32,
    "iterations": 1,
    "jobs": 1,
    "limit": 1,
    "short_side": 32,
    "stride": 0,
    "workers": 0,
}
"""Smallest value of a setting of that name; 32 pixels are one cell of the network's last stage."""

DEFAULT_BASELINE = "resnet50.mocov2_in1k_800ep"
"""What a paired probe measures against unless it is told otherwise: the strongest public MoCo v2."""


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Results side by side, a table a group of comparable ones.

    Args:
        results: `result.json` files, or folders that hold one; the first of each group is what the others differ from.
        metrics: metrics to show, such as `bbox/AP`; `all` shows every one; the task's main ones where none is given.
        markdown: file that gets the tables as Markdown.
        csv: file that gets every value, a line each, at full precision.
        html: file that gets the tables with plots, as one page that needs no other file.
    """

    results: list[Path]
    metrics: list[str] = field(default_factory=list)
    markdown: Path | None = None
    csv: Path | None = None
    html: Path | None = None


class Checked:
    """Settings that refuse a number below its smallest value when they are made."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name, None)
            if value is not None and value < least:
                raise UserError(f"--{name.replace('_', '-')} {value} is too small: give {least} or more")


@dataclass(frozen=True, kw_only=True)
class RunSettings(Checked):
    """What every evaluation of this package shares.

    Args:
        weights: what is measured: a registry name, a file or folder, `hf-hub:ORG/NAME[@REVISION]`, or `random`.
        arch: timm name of the backbone; needed for `random` weights alone.
        out: folder for the result, the pictures and the state to resume from.
        seed: of every random draw: initial heads, order, augmentation, hold-out, bootstrap, `random` weights.
        resume: go on from the state in `out`.
        overwrite: replace what an earlier run left in `out`.
        accelerator: `auto`, `cpu`, `cuda`, ... as Lightning takes it.
        devices: processes, one a device; batch sizes are totals over all of them.
        precision: of the networks, as Lightning takes it, such as `32-true` or `bf16-mixed`.
        workers: data-loading processes a device; 0 loads in the main process.
    """

    weights: str
    arch: str | None = None
    out: Path
    seed: int = 0
    resume: bool = False
    overwrite: bool = False
    accelerator: str = "auto"
    devices: int = 1
    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    workers: int = 2


@dataclass(frozen=True, kw_only=True)
class LinearSettings(RunSettings):
    """Linear classifiers on frozen features, two weights in one run over the same batches.

    Args:
        against: second weights, scored over the same images; `null` scores `weights` alone.
        data: folder with `train/CLASS/*` and `val/CLASS/*` images.
        protocol: `linear-sweep` (a grid of heads, chosen on a hold-out of the training images) or `linear-moco-lr30`.
        epochs: passes over the training images.
        batch_size: images a step, over all devices.
        image_size: side of the square the networks see, in pixels.
        holdout: share of the training images of each class that chooses the head (sweep alone).
    """

    against: str | None = DEFAULT_BASELINE
    data: Path
    protocol: Literal["linear-sweep", "linear-moco-lr30"] = "linear-sweep"
    epochs: int | None = None
    batch_size: int | None = None
    image_size: int | None = None
    holdout: float | None = None


@dataclass(frozen=True, kw_only=True)
class KnnSettings(RunSettings):
    """Weighted nearest neighbours on frozen features, two weights over the same images.

    Args:
        against: second weights, scored over the same images; `null` scores `weights` alone.
        data: folder with `train/CLASS/*` and `val/CLASS/*` images.
        neighbours: values of k.
        temperature: of the votes' weights, exp(cosine similarity / temperature).
        image_size: side of the square the networks see, in pixels.
        batch_size: images a forward pass, over all devices; no effect on the numbers.
        cache: folder of computed features; the user's cache folder where none is given.
    """

    against: str | None = DEFAULT_BASELINE
    data: Path
    neighbours: list[int] | None = None
    temperature: float | None = None
    image_size: int | None = None
    batch_size: int = 64
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class VocSvmSettings(RunSettings):
    """VOC2007 image classification by linear SVMs on frozen features.

    Args:
        against: second weights, scored over the same images; `null` (the default) scores `weights` alone.
        data: the `VOC2007` folder (`JPEGImages`, `ImageSets/Main`), or the `VOCdevkit` that holds it.
        costs: values of C, of which 3-fold cross-validation chooses one a class.
        image_size: side of the square the network sees, in pixels.
        batch_size: images a forward pass, over all devices; no effect on the numbers.
        jobs: processes that fit SVMs.
        cache: folder of computed features; the user's cache folder where none is given.
    """

    against: str | None = None
    data: Path
    costs: list[float] | None = None
    image_size: int | None = None
    batch_size: int = 64
    jobs: int = 1
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RegionSettings(RunSettings):
    """Classification of ground-truth boxes from frozen, RoI-aligned features, two weights over the same boxes.

    Args:
        against: second weights, scored over the same boxes; `null` scores `weights` alone.
        data: COCO-format folder: `annotations/instances_{train,val}2017.json`, `train2017`, `val2017`.
        features: `pyramid` (p2..p5), `stages` (res2..res5 of the backbone), or `auto`: the pyramid where all weights
            have one, else the stages.
        short_side: images are scaled to this shorter side, in pixels.
        long_side: but to no more than this longer side, in pixels.
        epochs: passes over the training boxes.
        batch_size: boxes a step.
        holdout: share of the training images whose boxes choose the head.
        neighbours: k of the region kNN.
        temperature: of the kNN votes' weights.
        cache: folder of computed features; the user's cache folder where none is given.
    """

    against: str | None = DEFAULT_BASELINE
    data: Path
    features: Literal["auto", "pyramid", "stages"] = "auto"
    short_side: int | None = None
    long_side: int | None = None
    epochs: int | None = None
    batch_size: int | None = None
    holdout: float | None = None
    neighbours: int | None = None
    temperature: float | None = None
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SegmentationSettings(RunSettings):
    """Semantic segmentation by a fully convolutional head on the backbone at stride 16.

    Args:
        data: Cityscapes' own folder (`leftImg8bit`, `gtFine`); or a folder with `train` and `val`, each with `images`
            and `labels` (PNGs of class ids, same stems), and optionally `classes.txt`, a class name a line; or a COCO
            folder (`train2017`, `val2017`) with such labels below `semantic`.
        protocol: `cityscapes-fcn16-90k` or `cityscapes-fcn16-150ep`.
        frozen: train the head alone; the backbone stays as it is, in eval mode.
        ignore: label ids, besides 255, that are neither trained on nor scored (not for Cityscapes, which has its own).
        iterations: optimizer steps; instead of the protocol's iterations or epochs.
        batch_size: crops a step, over all devices; learning rate and iterations stay as they are.
        lr: peak learning rate.
        scale_to: width and height, in pixels, that images are brought to before augmentation and for the test;
            `[0, 0]` keeps each image's own.
        crop_size: side of training crops and of the test window, in pixels.
        stride: step of the test window, in pixels.
        evaluate_every: iterations between evaluations; 0 evaluates the final network alone.
        checkpoint_every: iterations between states to resume from.
        save_predictions: write the final predictions as PNGs of label ids (Cityscapes: as its own scorer reads them).
    """

    data: Path
    protocol: Literal["cityscapes-fcn16-90k", "cityscapes-fcn16-150ep"] = "cityscapes-fcn16-90k"
    frozen: bool = False
    ignore: list[int] = field(default_factory=list)
    iterations: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    scale_to: tuple[int, int] | None = None
    crop_size: int | None = None
    stride: int | None = None
    evaluate_every: int | None = None
    checkpoint_every: int = 1000
    save_predictions: bool = False


@dataclass(frozen=True, kw_only=True)
class VisualizeSettings(Checked):
    """What the networks see: feature maps as colours, and what resembles a chosen box, one row of pictures a network.

    Args:
        images: image files, or folders of them.
        weights: one or more weights; each becomes a row.
        arch: timm name of the backbone; needed for `random` weights alone.
        out: folder for the pictures.
        box: x1,y1,x2,y2 in absolute pixels of each image; the middle third of the image where none is given.
        image_size: images are scaled to this shorter side, in pixels.
        limit: at most this many images.
        seed: of `random` weights.
        accelerator: `auto`, `cpu`, `cuda`, ... as Lightning takes it.
        overwrite: replace what an earlier run left in `out`.
    """

    images: list[Path]
    weights: list[str]
    arch: str | None = None
    out: Path
    box: tuple[float, float, float, float] | None = None
    image_size: int = 480
    limit: int = 16
    seed: int = 0
    accelerator: str = "auto"
    overwrite: bool = False
