"""Typed settings of every command of `ccop-eval`; nothing here imports torch, so that `--help` is fast.

A setting whose default is None takes the chosen protocol's value; any other value becomes part of the protocol id.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Literal

from ccop_hub.errors import UserError

_LEAST = {
    "batch_size": 1,
    "crop_size": 32,
    "devices": 1,
    "epochs": 1,
    "evaluate_every": 0,
    "image_size": 32,
    "iterations": 1,
    "limit": 1,
    "num_nodes": 1,
    "save_every": 1,
    "seed": 0,
    "short_side": 32,
    "stride": 0,
    "workers": 0,
}
"""Smallest value of a setting of that name; 32 pixels are one cell of the network's last stage."""

DEFAULT_PROTOCOL = "coco-fpn-4conv1fc-1x"
"""Detection protocol of the paper, and the one that most of the field reports."""

Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
"""Where to compute; `auto` takes a GPU where there is one."""

Precision = Literal["float32", "bf16", "fp16"]
"""Arithmetic of the networks: full precision, or autocast to one of the 16-bit types."""

LoadedParts = Literal["backbone", "backbone+fpn"]
"""Which parts of the weights go into a detector."""


@dataclass(frozen=True, kw_only=True)
class CompareSettings:
    """Compare results: one table per group of comparable ones.

    Args:
        results: `result.json` files, or folders that hold one; the others of a group are compared with its first.
        metrics: metrics to show, such as `bbox/AP`; `all` shows every one; by default the task's main ones.
        markdown: file for the tables as Markdown.
        csv: file for every value at full precision, one per line.
        html: file for tables and plots as one self-contained page.
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


@dataclass(frozen=True)
class RunSettings(Checked):
    """What every evaluation shares; `weights`, `data` and `out` may be given by position.

    Args:
        weights: weights to evaluate: a registry name, a file or folder, `hf-hub:ORG/NAME[@REVISION]`, or `random`.
        data: the data set; its layout depends on the evaluation.
        out: folder for the result, the pictures and the state that an interrupted run resumes from.
        backbone: timm name of the backbone; needed only for `random` weights.
        seed: seed of every random draw: new layers, order, augmentation, hold-out, bootstrap, `random` weights.
        resume: resume an unfinished run of the same settings in `out`; with `--no-resume`, any run there is refused.
        overwrite: start anew, replacing what an earlier run left in `out`.
        accelerator: `auto` (a GPU where there is one), `cpu`, `gpu`, `cuda` or `mps`.
        devices: devices of this machine, one process each; batch sizes are totals over all of them.
        precision: `float32`, or autocast of the networks to `bf16` or `fp16`.
        workers: data-loading processes per device; 0 loads in the main process.
    """

    weights: str
    data: Path
    out: Path
    _: KW_ONLY
    backbone: str | None = None
    seed: int = 0
    resume: bool = True
    overwrite: bool = False
    accelerator: Accelerator = "auto"
    devices: int = 1
    precision: Precision | None = None
    workers: int = 2


@dataclass(frozen=True, kw_only=True)
class PairedSettings(RunSettings):
    """What an evaluation of one or two weights shares.

    Args:
        against: second weights, evaluated on the same data in the same run, for a paired comparison.
    """

    against: str | None = None


@dataclass(frozen=True, kw_only=True)
class LinearSettings(PairedSettings):
    """Linear classifiers on frozen features, two weights in one run over the same batches.

    Args:
        data: folder with `train/CLASS/*` and `val/CLASS/*` images.
        protocol: `linear-sweep` (a grid of heads, chosen on a hold-out of the training images) or `linear-moco-lr30`.
        epochs: passes over the training images.
        batch_size: images per step, over all devices.
        image_size: side of the square the networks see, in pixels.
        holdout: share of the training images of each class that chooses the head (`linear-sweep` only).
    """

    protocol: Literal["linear-sweep", "linear-moco-lr30"] = "linear-sweep"
    epochs: int | None = None
    batch_size: int | None = None
    image_size: int | None = None
    holdout: float | None = None


@dataclass(frozen=True, kw_only=True)
class KnnSettings(PairedSettings):
    """Weighted nearest neighbours on frozen features, two weights over the same images.

    Args:
        data: folder with `train/CLASS/*` and `val/CLASS/*` images.
        neighbours: values of k.
        temperature: of the votes' weights, exp(cosine similarity / temperature).
        image_size: side of the square the networks see, in pixels.
        batch_size: images per forward pass, over all devices; it does not change the numbers.
        cache: folder of computed features; `features` in $CCOP_CACHE if not given.
    """

    neighbours: list[int] | None = None
    temperature: float | None = None
    image_size: int | None = None
    batch_size: int = 64
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class VocSvmSettings(PairedSettings):
    """VOC2007 image classification by linear SVMs on frozen features.

    Args:
        data: the `VOC2007` folder (`JPEGImages`, `ImageSets/Main`), or the `VOCdevkit` that holds it.
        costs: values of C; 3-fold cross-validation chooses one per class.
        image_size: side of the square the network sees, in pixels.
        batch_size: images per forward pass, over all devices; it does not change the numbers.
        cache: folder of computed features; `features` in $CCOP_CACHE if not given.
    """

    costs: list[float] | None = None
    image_size: int | None = None
    batch_size: int = 64
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RegionSettings(PairedSettings):
    """Classification of ground-truth boxes from frozen, RoI-aligned features, two weights over the same boxes.

    Args:
        data: COCO-format folder: `annotations/instances_{train,val}2017.json`, `train2017`, `val2017`.
        features: `pyramid` (p2..p5), `stages` (res2..res5 of the backbone), or `auto`: the pyramid if all weights
            have one, else the stages.
        short_side: images are scaled to this shorter side, in pixels.
        long_side: upper limit of the longer side after scaling, in pixels.
        epochs: passes over the training boxes.
        batch_size: boxes per step.
        holdout: share of the training images whose boxes choose the head.
        neighbours: k of the region kNN.
        temperature: of the kNN votes' weights.
        cache: folder of computed features; `features` in $CCOP_CACHE if not given.
    """

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
            and `labels` (PNGs of class ids, same stems), and optionally `classes.txt`, one class name per line; or a
            COCO folder (`train2017`, `val2017`) with such labels below `semantic`.
        protocol: `cityscapes-fcn16-90k` or `cityscapes-fcn16-150ep`.
        frozen: train only the head; the backbone stays in eval mode, unchanged.
        ignore: label ids, besides 255, that are neither trained on nor scored (not for Cityscapes, which has its own).
        label_map: values in label files that stand for another id, as VALUE:ID; masks of 0 and 255 need 255:1.
        iterations: optimizer steps; instead of the protocol's iterations or epochs.
        batch_size: crops per step, over all devices; learning rate and iterations are not adapted.
        lr: peak learning rate.
        scale_to: width and height, in pixels, to which images are resized before augmentation and for testing;
            `0 0` keeps their own size.
        crop_size: side of training crops and of the test window, in pixels.
        stride: step of the test window, in pixels.
        evaluate_every: iterations between evaluations; 0 evaluates only the final network.
        save_every: iterations between two saved states.
        save_predictions: write the final predictions as PNGs of label ids (Cityscapes: as its own scorer reads them).
    """

    protocol: Literal["cityscapes-fcn16-90k", "cityscapes-fcn16-150ep"] = "cityscapes-fcn16-90k"
    frozen: bool = False
    ignore: list[int] = field(default_factory=list)
    label_map: list[str] = field(default_factory=list)
    iterations: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    scale_to: tuple[int, int] | None = None
    crop_size: int | None = None
    stride: int | None = None
    evaluate_every: int | None = None
    save_every: int = 1000
    save_predictions: bool = False


@dataclass(frozen=True, kw_only=True)
class VisualizeSettings(Checked):
    """Show what networks see: feature maps as colours, and similarity to a chosen box, one row per network.

    Args:
        images: image files, or folders of them.
        weights: one or more weights, one row each.
        backbone: timm name of the backbone; needed only for `random` weights.
        out: folder for the pictures.
        box: x1,y1,x2,y2 in absolute pixels of each image; by default the middle third of the image.
        image_size: images are scaled to this shorter side, in pixels.
        limit: maximum number of images.
        seed: of `random` weights.
        accelerator: `auto` (a GPU where there is one), `cpu`, `gpu`, `cuda` or `mps`.
        overwrite: replace what an earlier run left in `out`.
    """

    images: list[Path]
    weights: list[str]
    backbone: str | None = None
    out: Path
    box: tuple[float, float, float, float] | None = None
    image_size: int = 480
    limit: int = 16
    seed: int = 0
    accelerator: Accelerator = "auto"
    overwrite: bool = False


@dataclass(frozen=True)
class InstallSettings:
    """Install Detectron2, the detection engine, into this Python environment."""


@dataclass(frozen=True, kw_only=True)
class DetectionSettings(PairedSettings):
    """Train Detectron2's Mask R-CNN from pre-trained weights and measure box and mask AP.

    Args:
        data: a folder in COCO's layout with any classes (train2017/, val2017/ and
            annotations/instances_{train,val}2017.json), in Pascal VOC's (VOC2007/, VOC2012/) or in Cityscapes'
            (leftImg8bit/, gtFine/); or coco, voc or cityscapes, found through $COCO_DIR or $DETECTRON2_DATASETS.
        out: folder for result.json, the picture sheet, the settings and Detectron2's own files; those of the second
            weights go to OUT/against.
        protocol: id of the evaluation protocol; only results of one protocol compare.
        load: parts of the weights to load, "backbone+fpn" or "backbone"; all others start at random.
        few_images: share of the training images to train on, chosen by the seed; the number of iterations stays.
        iterations: training iterations, one batch each; the protocol's if not given. Steps and warm-up scale with it.
        batch_size: images per iteration, over all processes; if not given, as many per GPU as the protocol has.
            Learning rate, length, steps and warm-up follow by the linear rule.
        num_nodes: machines with `devices` GPUs each, all running this command.
        node_rank: number of this machine, from 0; machine 0 writes the result.
        dist_url: where the processes meet, tcp://HOST:PORT of machine 0; "auto" on a single machine.
        save_every: iterations between two checkpoints; the protocol's if not given.
        evaluate_every: iterations between two evaluations during training, for a learning curve of AP; 0 evaluates
            only at the end. The protocol's if not given.
        precision: "float32", or "fp16" for autocast to float16 (GPU only); the protocol's if not given.
        eval_only: evaluate the finished training in `out` again, without training.
    """

    protocol: str = DEFAULT_PROTOCOL
    load: LoadedParts = "backbone+fpn"
    few_images: Literal["1%", "5%", "10%"] | None = None
    iterations: int | None = None
    batch_size: int | None = None
    num_nodes: int = 1
    node_rank: int = 0
    dist_url: str = "auto"
    save_every: int | None = None
    evaluate_every: int | None = None
    precision: Literal["float32", "fp16"] | None = None
    eval_only: bool = False

    @property
    def processes(self) -> int:
        """Training processes over all machines, one per GPU."""
        return self.devices * self.num_nodes
