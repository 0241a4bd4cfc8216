"""Typed settings of every command of `ccop-eval`; nothing here imports torch, so that `--help` is fast.

A setting whose default is None uses the protocol's value; any other value becomes part of the protocol id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from ccop_hub.errors import UserError
from ccop_hub.limits import DEFAULT_WORKERS, MAX_PIXELS
from ccop_hub.validation import (
    Described,
    Ge,
    Interval,
    Len,
    NonNegativeInt,
    OneOf,
    PositiveFloat,
    PositiveInt,
    Predicate,
    Seed,
    Share,
    Validated,
)

DETECTION_PROTOCOLS = tuple(sorted(path.stem for path in Path(__file__).parent.glob("detection/protocols/[!_]*.yaml")))
"""Ids of the detection protocols, one per YAML file."""

DEFAULT_PROTOCOL = "coco-fpn-4conv1fc-1x"
"""The paper's detection protocol, also the most commonly reported one."""

Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
"""Where to compute; `auto` uses a GPU if there is one."""

Precision = Literal["float32", "bf16", "fp16"]
"""Arithmetic of the networks: full precision, or autocast to one of the 16-bit types."""

LoadedParts = Literal["backbone", "backbone+fpn"]
"""Parts of the weights that are loaded into a detector."""

Task = Literal["all", "detection", "segmentation", "linear", "knn", "voc-svm", "regions", "pretrain"]
"""What `doctor` checks a machine for."""

Pixels = Annotated[int, Ge(32)]
"""Length of an image side; 32 pixels is the stride of the network's last stage."""

HeadBatch = Annotated[int, Ge(2)]
"""Images or boxes per step of a head: batch norm has no statistics of one."""

Holdout = Annotated[float, Interval(gt=0, lt=1)]
"""Fraction of the training data held out to choose a head."""


def _is_box(box: Sequence[float]) -> bool:
    return 0 <= box[0] < box[2] and 0 <= box[1] < box[3]


Box = Annotated[
    tuple[float, float, float, float],
    Predicate(_is_box),
    Described("four numbers x1 y1 x2 y2 in pixels, with 0 <= x1 < x2 and 0 <= y1 < y2"),
]
"""A box as corners in absolute pixels."""


def _is_label_pair(text: str) -> bool:
    value, _, label = text.partition(":")
    return all(part.isdecimal() and int(part) <= 255 for part in (value, label))


LabelPair = Annotated[str, Predicate(_is_label_pair), Described("VALUE:ID, two numbers from 0 to 255")]
"""A value in label files and the id it maps to."""


@dataclass(frozen=True)
class CompareSettings(Validated):
    """Compare results: one table per group of comparable results.

    Args:
        results: result files (`result.json`), or folders that contain one; each is compared with the first of its
            group.
        metrics: metrics to show, such as `bbox/AP`, or `all`; the task's main metrics by default.
        markdown: file to write the tables to as Markdown.
        csv: file to write every value to, one per line, at full precision.
        html: file to write a self-contained page of tables and plots to.
    """

    results: Annotated[list[Path], Len(1)]
    _: KW_ONLY
    metrics: list[str] = field(default_factory=list)
    markdown: Path | None = None
    csv: Path | None = None
    html: Path | None = None


@dataclass(frozen=True)
class LeaderboardSettings(Validated):
    """Rank all results below a folder: a Markdown page with a table and a plot for each group of comparable results.

    Args:
        records: folder that contains `result.json` files, at any depth.
        out: Markdown file to write; the plots go to a folder beside it. In an existing file, only the text between the
            lines `<!-- leaderboard -->` and `<!-- end of leaderboard -->` is replaced.
        check: write nothing; exit with 1 if `out` is not what would be written.
    """

    records: Path
    out: Path
    _: KW_ONLY
    check: bool = False


@dataclass(frozen=True)
class RunSettings(Validated):
    """Settings of every evaluation; `weights`, `data` and `out` may be positional arguments.

    Args:
        weights: weights to evaluate: a registry name, a file or folder, `hf-hub:ORG/NAME[@REVISION]`, or `random`.
        data: folder of the data set.
        out: folder for the result, the pictures and the state from which an interrupted run resumes.
        backbone: timm name of the backbone; needed only for `random` weights.
        seed: seed of all random draws: new layers, order, augmentation, hold-out, bootstrap, `random` weights.
        resume: resume an unfinished run with the same settings in `out`; --no-resume refuses any existing run.
        overwrite: start over, replacing the earlier run in `out`.
        accelerator: `auto` (a GPU if there is one), `cpu`, `gpu`, `cuda` or `mps`.
        devices: number of devices on this machine, with one process each; batch sizes are totals over all of them.
        precision: `float32`, or autocast of the networks to `bf16` or `fp16` (GPU only).
        workers: data-loading processes per device; 0 loads data in the main process.
    """

    TOPIC: ClassVar[str] = "Running"

    weights: str
    data: Path
    out: Path
    _: KW_ONLY
    backbone: str | None = None
    seed: Seed = 0
    resume: bool = True
    overwrite: bool = False
    accelerator: Accelerator = "auto"
    devices: PositiveInt = 1
    precision: Precision | None = "float32"
    workers: NonNegativeInt = DEFAULT_WORKERS

    def check_together(self) -> None:
        """Refuse half precision on a processor."""
        if self.precision == "fp16" and self.accelerator == "cpu":
            raise UserError("--precision fp16 needs a GPU: use bf16, or remove --accelerator cpu")


@dataclass(frozen=True, kw_only=True)
class PairedSettings(RunSettings):
    """Settings of evaluations of one or two sets of weights.

    Args:
        against: second set of weights, evaluated on the same data in the same run, for a paired comparison.
    """

    TOPIC: ClassVar[str] = "Running"

    against: str | None = None


@dataclass(frozen=True, kw_only=True)
class LinearSettings(PairedSettings):
    """Train linear classifiers on frozen features, of one or two sets of weights on the same batches.

    Args:
        data: folder with `train/CLASS/*` and `val/CLASS/*` images.
        protocol: `linear-sweep` (a grid of heads, of which held-out training images choose one) or `linear-moco-lr30`.
        epochs: passes over the training images.
        batch_size: images per step, over all devices.
        image_size: side of the square images that the networks see, in pixels.
        holdout: fraction of each class's training images held out to choose the head; only for `linear-sweep`.
    """

    TOPIC: ClassVar[str] = "Protocol"

    protocol: Literal["linear-sweep", "linear-moco-lr30"] = "linear-sweep"
    epochs: PositiveInt | None = None
    batch_size: HeadBatch | None = None
    image_size: Pixels | None = None
    holdout: Holdout | None = None


@dataclass(frozen=True, kw_only=True)
class KnnSettings(PairedSettings):
    """Classify by weighted nearest neighbours of frozen features, of one or two sets of weights on the same images.

    Args:
        data: folder with `train/CLASS/*` and `val/CLASS/*` images.
        neighbours: values of k.
        temperature: temperature of the vote weights, exp(cosine similarity / temperature).
        image_size: side of the square images that the networks see, in pixels.
        batch_size: images per forward pass, over all devices; does not change the result.
        cache: folder of computed features; `features` in $CCOP_CACHE by default.
    """

    TOPIC: ClassVar[str] = "Protocol"

    neighbours: Annotated[list[PositiveInt], Len(1)] | None = None
    temperature: PositiveFloat | None = None
    image_size: Pixels | None = None
    batch_size: PositiveInt = 64
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class VocSvmSettings(PairedSettings):
    """Classify VOC2007 images by linear SVMs on frozen features.

    Args:
        data: the `VOC2007` folder (`JPEGImages`, `ImageSets/Main`), or the `VOCdevkit` that contains it.
        costs: values of C, from which 3-fold cross-validation chooses one per class.
        image_size: side of the square input images, in pixels.
        batch_size: images per forward pass, over all devices; does not change the result.
        workers: processes that load images (per device) and that fit SVMs; 0 uses the main process for both.
        cache: folder of computed features; `features` in $CCOP_CACHE by default.
    """

    TOPIC: ClassVar[str] = "Protocol"

    costs: Annotated[list[PositiveFloat], Len(1)] | None = None
    image_size: Pixels | None = None
    batch_size: PositiveInt = 64
    cache: Path | None = None


@dataclass(frozen=True, kw_only=True)
class RegionSettings(PairedSettings):
    """Classify ground-truth boxes by frozen, RoI-aligned features, of one or two sets of weights on the same boxes.

    Args:
        data: COCO-format folder: `annotations/instances_{train,val}2017.json`, `train2017`, `val2017`.
        features: `pyramid` (p2..p5), `stages` (res2..res5 of the backbone), or `auto`: the pyramid if all weights have
            one, otherwise the stages.
        short_side: length to which the shorter side of each image is scaled, in pixels.
        long_side: maximum length of the longer side, in pixels.
        holdout: fraction of the training images held out to choose the penalty of the linear classifier.
        neighbours: k of the nearest-neighbour classifier.
        temperature: temperature of the nearest neighbours' vote weights.
        cache: folder of computed features; `features` in $CCOP_CACHE by default.
    """

    TOPIC: ClassVar[str] = "Protocol"

    features: Literal["auto", "pyramid", "stages"] = "auto"
    short_side: Pixels | None = None
    long_side: Pixels | None = None
    holdout: Holdout | None = None
    neighbours: PositiveInt | None = None
    temperature: PositiveFloat | None = None
    cache: Path | None = None

    def check_together(self) -> None:
        """Also reject a longer side below the shorter one."""
        super().check_together()
        if self.short_side is not None and self.long_side is not None and self.long_side < self.short_side:
            raise UserError(f"--long-side {self.long_side} is below --short-side {self.short_side}: give a larger one")


@dataclass(frozen=True, kw_only=True)
class SegmentationSettings(RunSettings):
    """Train and evaluate semantic segmentation with a fully convolutional head on the backbone, at stride 16.

    Args:
        data: Cityscapes folder (`leftImg8bit`, `gtFine`); or a folder with `train` and `val`, each with `images` and
            `labels` (class ids as PNG, BMP or TIFF, under the names of the images), and optionally `classes.txt` with
            one class name per line; or a COCO folder (`train2017`, `val2017`) with such labels in `semantic`.
        protocol: `cityscapes-fcn16-90k` or `cityscapes-fcn16-150ep`.
        frozen: train only the head; the backbone is frozen, in eval mode.
        ignore: label ids to exclude from training and scoring, in addition to 255 (not for Cityscapes, which defines
            its own).
        label_map: label values to replace with another id, as VALUE:ID; masks of 0 and 255 need 255:1.
        iterations: number of optimizer steps; overrides the protocol's iterations or epochs.
        batch_size: crops per step, over all devices; learning rate and iterations do not change with it.
        lr: peak learning rate.
        scale_to: width and height, in pixels, to which images are scaled before augmentation and for testing; `0 0`
            keeps the size of each image.
        crop_size: side of the training crops and of the test window, in pixels.
        stride: stride of the sliding test window, in pixels; 0 tests whole images.
        evaluate_every: iterations between evaluations; 0 evaluates only the final network.
        save_every: iterations between checkpoints.
        save_predictions: write the final predictions as PNGs of label ids (for Cityscapes, in the format of its
            official scorer).
    """

    TOPIC: ClassVar[str] = "Protocol"

    protocol: Literal["cityscapes-fcn16-90k", "cityscapes-fcn16-150ep"] = "cityscapes-fcn16-90k"
    frozen: bool = False
    ignore: list[Annotated[int, Interval(ge=0, le=255)]] = field(default_factory=list)
    label_map: list[LabelPair] = field(default_factory=list)
    iterations: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    lr: PositiveFloat | None = None
    scale_to: tuple[NonNegativeInt, NonNegativeInt] | None = None
    crop_size: Pixels | None = None
    stride: NonNegativeInt | None = None
    evaluate_every: NonNegativeInt | None = None
    save_every: PositiveInt = 1000
    save_predictions: bool = False

    def check_together(self) -> None:
        """Also reject a size with one side of 0."""
        super().check_together()
        if self.scale_to is not None and 0 in self.scale_to and any(self.scale_to):
            raise UserError(f"--scale-to {self.scale_to[0]} {self.scale_to[1]}: give two sides of 1 or more, or 0 0")


@dataclass(frozen=True, kw_only=True)
class DetectionSettings(PairedSettings):
    """Train Detectron2's Mask R-CNN from pre-trained weights and measure box and mask AP.

    Args:
        data: folder in COCO format with any classes (train2017/, val2017/ and
            annotations/instances_{train,val}2017.json), in Pascal VOC format (VOC2007/, VOC2012/) or in Cityscapes
            format (leftImg8bit/, gtFine/); or coco, voc or cityscapes, found through $COCO_DIR or $DETECTRON2_DATASETS.
        out: folder for result.json, the picture sheet, the settings and Detectron2's own files; those of `against` go
            to OUT/against.
        protocol: id of the evaluation protocol; only results of the same protocol are comparable.
        load: parts of the weights to load, `backbone+fpn` or `backbone`; everything else is randomly initialised.
        few_images: percentage of the training images to train on, chosen by the seed; the number of iterations stays
            the same.
        iterations: training iterations, one batch each; the protocol's by default. Steps and warm-up scale with it.
        batch_size: images per iteration, over all processes; by default as many per GPU as in the protocol. Learning
            rate, iterations, steps and warm-up are scaled linearly with it.
        num_nodes: number of machines with `devices` GPUs each, all running this command.
        node_rank: rank of this machine, from 0; machine 0 writes the result.
        dist_url: address for process-group initialisation, tcp://HOST:PORT of machine 0; `auto` on a single machine.
        save_every: iterations between checkpoints; the protocol's by default.
        evaluate_every: iterations between evaluations during training, for a learning curve of AP; 0 evaluates only at
            the end. The protocol's by default.
        precision: `float32`, or `fp16` for autocast to float16 (GPU only); the protocol's by default.
        eval_only: evaluate the finished run in `out` again, without training.
    """

    TOPIC: ClassVar[str] = "Protocol"

    protocol: Annotated[str, OneOf(DETECTION_PROTOCOLS)] = DEFAULT_PROTOCOL
    load: LoadedParts = "backbone+fpn"
    few_images: Literal["1%", "5%", "10%"] | None = None
    iterations: PositiveInt | None = None
    batch_size: PositiveInt | None = None
    num_nodes: PositiveInt = 1
    node_rank: NonNegativeInt = 0
    dist_url: str = "auto"
    save_every: PositiveInt | None = None
    evaluate_every: NonNegativeInt | None = None
    precision: Literal["float32", "fp16"] | None = None
    eval_only: bool = False

    @property
    def processes(self) -> int:
        """Number of training processes on all machines, one per GPU."""
        return self.devices * self.num_nodes

    def check_together(self) -> None:
        """Also reject machines without a common address, and evaluating a run that would be removed."""
        super().check_together()
        if self.node_rank >= self.num_nodes:
            raise UserError(
                f"--node-rank {self.node_rank} is not allowed: with --num-nodes {self.num_nodes}, give a number from 0 "
                f"to {self.num_nodes - 1}"
            )
        if self.num_nodes > 1 and self.dist_url == "auto":
            raise UserError("--num-nodes above 1 needs a common address: give --dist-url tcp://HOST:PORT of machine 0")
        if self.eval_only and self.overwrite:
            raise UserError("--overwrite would remove the run that --eval-only evaluates: use only one of them")


@dataclass(frozen=True, kw_only=True)
class DemoSettings(Validated):
    """Compare a trained network with an untrained one on synthetic images, in half a minute and without any data.

    Squares of the images are classified as object or background by their nearest neighbours in the features of each
    network. Nothing is downloaded or written.

    Args:
        weights: trained weights: a registry name, a file or folder, or `hf-hub:ORG/NAME[@REVISION]`; by default those
            that are part of the package.
        seed: seed of the images and of the untrained network.
        noise: replace the images with noise: both networks fall to chance.
        accelerator: `auto` (a GPU if there is one), `cpu`, `gpu`, `cuda` or `mps`.
    """

    weights: str | None = None
    seed: Seed = 0
    noise: bool = False
    accelerator: Accelerator = "auto"


@dataclass(frozen=True, kw_only=True)
class DoctorSettings(Validated):
    """Check what works on this machine, one line per component; exit code 1 if the task lacks a component.

    Args:
        task: task to check for: one of the evaluations, `pretrain`, or `all`.
    """

    task: Task = "all"


@dataclass(frozen=True)
class InstallSettings(Validated):
    """Install Detectron2, the detection engine, into this Python environment."""


@dataclass(frozen=True)
class VisualizeSettings(Validated):
    """Draw feature maps as colours, and the similarity to a chosen box, with two rows of pictures per network.

    Args:
        images: image files, or folders of images.
        weights: one or more sets of weights.
        backbone: timm name of the backbone; needed only for `random` weights.
        out: folder for the pictures.
        features: `pyramid` (p2 to p5) or `stages` of the backbone (res2 to res5); by default, the pyramid if all
            weights have one.
        box: x1 y1 x2 y2 in absolute pixels of each image; the middle third of the image by default.
        image_size: length to which the shorter side of each image is scaled, in pixels.
        limit: maximum number of images.
        seed: seed of `random` weights.
        accelerator: `auto` (a GPU if there is one), `cpu`, `gpu`, `cuda` or `mps`.
        overwrite: replace the pictures of a run with other settings in `out`.
    """

    images: Annotated[list[Path], Len(1)]
    weights: Annotated[list[str], Len(1)]
    out: Path
    _: KW_ONLY
    backbone: str | None = None
    features: Literal["pyramid", "stages"] | None = None
    box: Box | None = None
    image_size: Pixels = 480
    limit: PositiveInt = 16
    seed: Seed = 0
    accelerator: Accelerator = "auto"
    overwrite: bool = False


@dataclass(frozen=True)
class PredictSettings(Validated):
    """Run the detector or segmenter of a finished run on any images.

    A detector writes COCO results (`predictions.json`, whose ids are explained in `images.json`), a segmenter an 8-bit
    PNG of label ids per image (`labels/`). Both draw a picture per image (`pictures/`).

    Args:
        run: folder of a finished `ccop-eval detection` or `segmentation` run.
        images: folder of images (recursive) or of tar shards, list of paths (.txt), pattern of tar shards, COCO JSON,
            or folder of a COCO data set.
        out: folder for the predictions and pictures.
        threshold: minimum score of a drawn detection; `predictions.json` contains the others too.
        pictures: draw a picture per image.
        accelerator: `auto` (a GPU if there is one), `cpu`, `gpu`, `cuda` or `mps`.
        max_pixels: largest images to read, as width x height.
        max_unreadable: stop if more than this fraction of the images is unreadable or too large.
        overwrite: replace earlier predictions in `out`.
    """

    run: Path
    images: Path
    out: Path
    _: KW_ONLY
    threshold: Share = 0.5
    pictures: bool = True
    accelerator: Accelerator = "auto"
    max_pixels: PositiveInt = MAX_PIXELS
    max_unreadable: Share = 0.01
    overwrite: bool = False
