"""Settings of every command of `ccop-pretrain`; nothing here imports torch, so that `--help` is fast.

The defaults of a run are the paper's, as set in the authors' code.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from ccop_hub.errors import UserError
from ccop_hub.limits import MAX_PIXELS
from ccop_hub.validation import (
    Described,
    Ge,
    Gt,
    Interval,
    Len,
    Lt,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Predicate,
    Rising,
    Seed,
    Share,
    Validated,
)

from .estimates import CORE_WATTS, EVALUATION_PASSES, GPU_WATTS, SCALING

Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
"""Where to train; `auto` uses a GPU if there is one."""

AreaRange = Annotated[
    tuple[Annotated[float, Interval(gt=0, le=1)], Annotated[float, Interval(gt=0, le=1)]],
    Rising,
    Described("two shares above 0 and at most 1, the smaller one first"),
]

RatioRange = Annotated[
    tuple[PositiveFloat, PositiveFloat], Rising, Described("two numbers above 0, the smaller one first")
]

StartEnd = tuple[NonNegativeFloat, NonNegativeFloat]
"""Value at the start and at the end of training."""

Momentum = Annotated[float, Interval(ge=0, lt=1)]
"""Fraction of a moving average that a step keeps."""


def _is_odd(number: int) -> bool:
    return number % 2 == 1


OddInt = Annotated[int, Ge(1), Predicate(_is_odd), Described("an odd number, 1 or more")]
"""Side of a kernel with a pixel in its middle."""


def _is_shard(text: str) -> bool:
    place, slash, of = text.partition("/")
    return bool(slash) and place.isdecimal() and of.isdecimal() and 1 <= int(place) <= int(of)


SceneSize = Annotated[int, Ge(96)]
"""Pixels; below 96, the objects in a synthetic image are too small for their shapes to be recognisable."""

Part = Annotated[str, Predicate(_is_shard), Described("I/N, with I from 1 to N")]
"""One of N parts of a set of images."""


@dataclass(frozen=True, kw_only=True)
class ReadingSettings(Validated):
    """Which images of a data set are skipped, and how many may be.

    Args:
        max_pixels: largest images to read, as width x height; may exceed Pillow's own limit. An image takes about 3
            bytes per pixel in each process that reads it, and ten times that when it is searched.
        max_unreadable: stop if more than this fraction of the images is unreadable or too large.
    """

    TOPIC: ClassVar[str] = "Reading images"

    max_pixels: PositiveInt = MAX_PIXELS
    max_unreadable: Share = 0.01


@dataclass(frozen=True, kw_only=True)
class SmallDataSettings(Validated):
    """Departures from the paper that may help on small data sets; every default is the paper's run.

    Args:
        negatives: what each query is contrasted with: past keys from the `queue`; the keys of the other images of the
            same `batch`, which are as old as its own (those of the same process and micro-batch); or `both`.
        split_bn: groups that a process's share of a batch is split into for batch norm, in both encoders, with the key
            images shuffled between the groups: as if so many processes trained. At least two images per group.
        head_init: initial weights of both heads: N(0, 0.01) with zero biases (`paper`), or those of `torch.nn.Linear`
            (`pytorch`).
        head_norm: `batch` adds batch norm after the hidden layer of both heads.
        zero_init_last: start the scale of the last batch norm of each residual block at 0 rather than 1; no effect on
            weights that `init` loads.
        same_crops: let proposals decide the crops even if no loss uses boxes: `mocov2` then sees the crops of `ccop`.
    """

    TOPIC: ClassVar[str] = "Small data sets"

    negatives: Literal["queue", "batch", "both"] = "queue"
    split_bn: PositiveInt = 1
    head_init: Literal["paper", "pytorch"] = "paper"
    head_norm: Literal["none", "batch"] = "none"
    zero_init_last: bool = False
    same_crops: bool = False


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings(SmallDataSettings):
    """The CCOP objective; a loss weight of 0 disables the loss and everything that only this loss needs.

    Args:
        objective: `ccop` (image, box and intra-image losses) or `mocov2` (only the image loss).
        temperature_image: InfoNCE temperature of the image loss.
        temperature_box: InfoNCE temperature of the box loss.
        momentum: momentum of the key encoder's moving average; 1 freezes it.
        image_queue: number of image keys kept as negatives.
        box_queue: number of box keys kept as negatives.
        queue_end: `drop` box keys beyond the end of the queue, as the authors' code does, or `wrap` them to its start.
        jitters: number of jittered copies of each key box; the box itself is an additional candidate.
        iou_threshold: minimum IoU of a valid jitter with its box, at the start and the end of training.
        centre_magnitude: width of the uniform centre shift, in box sizes, at the start and the end of training.
        size_magnitude: width of the uniform log-size change, at the start and the end of training.
        intra_iou: two key boxes of an image with an IoU below this count as different objects in the intra-image loss.
        intra_margin: margin of the intra-image hinge, in cosine similarity.
        dropout: dropout probability in both heads of the query and the key encoder.
        embedding_dim: dimension of the image and box embeddings.
        hidden_dim: number of hidden units in both heads.
        weight_image: weight of the image loss.
        weight_box: weight of the inter-image box loss.
        weight_intra: weight of the intra-image box loss.
    """

    TOPIC: ClassVar[str] = "Objective"

    objective: Literal["ccop", "mocov2"] = "ccop"
    temperature_image: PositiveFloat = 0.2
    temperature_box: PositiveFloat = 0.2
    momentum: Share = 0.999
    image_queue: PositiveInt = 65536
    box_queue: PositiveInt = 65536
    queue_end: Literal["drop", "wrap"] = "drop"
    jitters: NonNegativeInt = 10
    iou_threshold: tuple[Share, Share] = (0.8, 0.4)
    centre_magnitude: StartEnd = (0.15, 0.6)
    size_magnitude: StartEnd = (0.35, 1.4)
    intra_iou: Share = 0.05
    intra_margin: Annotated[float, Interval(ge=0, le=2)] = 0.4
    dropout: Annotated[float, Ge(0), Lt(1)] = 0.1
    embedding_dim: PositiveInt = 128
    hidden_dim: PositiveInt = 2048
    weight_image: NonNegativeFloat = 1.0
    weight_box: NonNegativeFloat = 1.0
    weight_intra: NonNegativeFloat = 1.0

    @property
    def uses_boxes(self) -> bool:
        """Whether any loss uses boxes, so that proposals are needed."""
        return self.objective == "ccop" and (self.weight_box != 0 or self.weight_intra != 0)

    @property
    def reads_boxes(self) -> bool:
        """Whether the views are made with proposals, be it only for their crops."""
        return self.uses_boxes or self.same_crops

    def check_together(self) -> None:
        """Reject an objective in which every loss has weight 0."""
        super().check_together()
        weights = (
            (self.weight_image,)
            if self.objective == "mocov2"
            else (
                self.weight_image,
                self.weight_box,
                self.weight_intra,
            )
        )
        if not any(weights):
            raise UserError(f"every loss of --objective {self.objective} has weight 0: set at least one weight above 0")


@dataclass(frozen=True, kw_only=True)
class PhotometricSettings(Validated):
    """Colours and blur of the views; every default is the paper's.

    Args:
        colour_jitter: how brightness changes: `additive` (the paper) adds a number to every pixel, `multiplicative`
            multiplies by one, as torchvision does, and saturates fewer pixels.
        jitter_strength: factor of the strengths of the colour jitter (brightness and contrast 0.4, saturation 0.2, hue
            0.1).
        blur_kernel: side of the Gaussian blur's kernel in pixels, an odd number; 1 blurs nothing.
        scale_blur: take the kernel and standard deviation of the blur as those for an image size of 224 and scale them
            with the image size.
    """

    TOPIC: ClassVar[str] = "Colours and blur"

    colour_jitter: Literal["additive", "multiplicative"] = "additive"
    jitter_strength: Annotated[float, Interval(ge=0, le=2.5)] = 1.0
    blur_kernel: OddInt = 7
    scale_blur: bool = False


@dataclass(frozen=True, kw_only=True)
class ViewSettings(PhotometricSettings):
    """How the two views of an image are cropped, and which boxes are kept.

    Args:
        image_size: side of both views in pixels; the assignment of boxes to pyramid levels scales with it.
        crop_area: minimum and maximum area of a crop, as a fraction of the image.
        crop_ratio: minimum and maximum aspect ratio (width / height) of a crop.
        crop_tries: maximum number of crops drawn for a view until one keeps enough boxes; if none does, the crop that
            keeps the most is used (the last one in a tie).
        min_boxes: number of boxes that a crop must keep to be accepted at once.
        kept_share: a crop keeps a box if more than this fraction of the box's area is inside.
        min_box_area: minimum area of a box in a view, in square pixels for an image size of 224; scales with the image
            size.
        max_boxes: maximum number of proposals used per image, in descending order of their random scores.
    """

    TOPIC: ClassVar[str] = "Views"

    image_size: PositiveInt = 224
    crop_area: AreaRange = (0.1, 1.0)
    crop_ratio: RatioRange = (3 / 4, 4 / 3)
    crop_tries: PositiveInt = 10
    min_boxes: NonNegativeInt = 1
    kept_share: Share = 0.6
    min_box_area: NonNegativeFloat = 144.0
    max_boxes: PositiveInt = 100

    def check_together(self) -> None:
        """Reject a blur that does not fit into the views."""
        super().check_together()
        if not self.scale_blur and self.blur_kernel // 2 >= self.image_size:
            raise UserError(
                f"--blur-kernel {self.blur_kernel} does not fit into --image-size {self.image_size}: give a kernel of "
                f"{2 * self.image_size - 1} or less, or --scale-blur"
            )


@dataclass(frozen=True, kw_only=True)
class OptimisationSettings(Validated):
    """The optimiser, with linear warm-up and a cosine schedule.

    Args:
        epochs: passes over the images; the last, incomplete batch of a pass is dropped.
        steps: length of the run in steps; overrides `epochs`.
        batch_size: images per step, over all processes together.
        micro_batches: number of equal parts, of two or more images, in which each process handles its share of a batch
            (gradient accumulation), to save memory. Batch norm uses the statistics of one part at a time.
        lr: peak learning rate for 256 images per step; scaled linearly with the batch size.
        optimizer: `sgd` (the paper) or `adamw`, whose learning rate is some hundred times smaller: `--lr 0.001`.
        sgd_momentum: momentum of SGD.
        weight_decay: weight decay of all parameters; see `decay_norms`.
        decay_norms: apply the weight decay to biases and batch norm as well, as the paper does.
        warmup_epochs: epochs of linear warm-up, updated every step; at most half of the run.
        warmup_start: learning rate at the start of the warm-up, as a fraction of the peak.
    """

    TOPIC: ClassVar[str] = "Optimisation"

    epochs: PositiveInt = 800
    steps: PositiveInt | None = None
    batch_size: PositiveInt = 256
    micro_batches: PositiveInt = 1
    lr: PositiveFloat = 0.3
    optimizer: Literal["sgd", "adamw"] = "sgd"
    sgd_momentum: Momentum = 0.9
    weight_decay: NonNegativeFloat = 1e-4
    decay_norms: bool = True
    warmup_epochs: NonNegativeFloat = 10.0
    warmup_start: Share = 1e-4


@dataclass(frozen=True)
class RunSettings(ObjectiveSettings, ViewSettings, OptimisationSettings, ReadingSettings):
    """Pre-train a network on unlabelled images.

    Args:
        images: folder of images (recursive) or of tar shards, list of paths (.txt), pattern of tar shards
            ('train-{000..099}.tar'), COCO JSON, or folder of a COCO data set.
        out: folder of the run.
        proposals: folder written by `ccop-pretrain proposals` for the same `images`; `mocov2` needs none.
        backbone: timm name of a convolutional network, such as resnet50, convnext_tiny or regnety_008.
        init: initial weights (registry name, file, folder or hf-hub:ORG/NAME); random by default. Heads and queues
            always start at random.
        precision: `float32`, or autocast of the networks to `bf16` or `fp16` (GPU only); box geometry, augmentation,
            similarities and losses stay in float32.
        channels_last: keep images and convolutions in the channels-last memory layout, which tensor cores and the
            vector units of a CPU prefer.
        compile: compile both encoders with torch.compile. Not advised: on an H100 it gained nothing (947 images per
            second instead of 964, with bf16 and channels_last) and took 79 s at the start.
        activation_checkpointing: recompute activations of the query encoder's blocks in the backward pass instead of
            storing them; saves memory, takes more time.
        seed: seed of the initial weights and of all random draws.
        devices: number of processes per machine, one per GPU; `auto` uses all GPUs, or one process on a CPU.
        num_nodes: number of machines, with `devices` processes each; start them with torchrun or SLURM.
        accelerator: `auto` (a GPU if there is one), `cpu`, `gpu`, `cuda` or `mps`.
        workers: data-loading processes per training process; one per core, at most 8, by default. Does not affect the
            result.
        log_every: steps between rows of metrics.csv.
        save_every: steps between checkpoints; the last two are kept.
        pictures: number of images on the picture sheets in the run folder; 0 draws none.
        tensorboard: also write the metrics as TensorBoard logs.
        wandb: Weights & Biases project to also log the metrics to; needs the package `wandb`.
        mlflow: MLflow experiment to also log the metrics to, at $MLFLOW_TRACKING_URI or in OUT/mlruns; needs the
            package `mlflow` or `mlflow-skinny`.
        probe: folder with one subfolder of images per class; the kNN accuracy on these images is logged.
        probe_every: epochs between probes.
        resume: resume an unfinished run with the same settings in `out`; --no-resume refuses any existing run.
        overwrite: start over, replacing the run in `out`.
    """

    TOPIC: ClassVar[str] = "Running"

    images: Path
    out: Path
    _: KW_ONLY
    proposals: Path | None = None
    backbone: str = "resnet50"
    init: str | None = None
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    activation_checkpointing: bool = False
    seed: Seed = 0
    devices: PositiveInt | Literal["auto"] = "auto"
    num_nodes: PositiveInt = 1
    accelerator: Accelerator = "auto"
    workers: NonNegativeInt | None = None
    log_every: PositiveInt = 50
    save_every: PositiveInt = 500
    pictures: NonNegativeInt = 3
    tensorboard: bool = True
    wandb: str | None = None
    mlflow: str | None = None
    probe: Path | None = None
    probe_every: PositiveFloat = 10.0
    resume: bool = True
    overwrite: bool = False

    def check_together(self) -> None:
        """Reject settings that are incompatible.

        Raises:
            UserError: no proposals though a loss needs boxes, half precision on a processor, or a compiled network
                that is told what to recompute.
        """
        super().check_together()
        if self.uses_boxes and self.proposals is None:
            raise UserError(
                f"--objective {self.objective} needs boxes: give --proposals DIR (made by `ccop-pretrain proposals "
                f"{self.images} --out DIR`), or use --objective mocov2"
            )
        if self.same_crops and self.proposals is None:
            raise UserError("--same-crops takes the crops from proposals: give --proposals DIR, or leave it out")
        if self.precision == "fp16" and self.accelerator == "cpu":
            raise UserError("--precision fp16 needs a GPU: use bf16, or remove --accelerator cpu")
        if self.compile and self.activation_checkpointing:
            raise UserError(
                "--compile and --activation-checkpointing cannot be combined: remove one (torch.compile itself "
                "decides what to recompute)"
            )


@dataclass(frozen=True)
class InspectSettings(ObjectiveSettings, ViewSettings, ReadingSettings):
    """Draw the views and boxes that a run would train on, and count them.

    Args:
        images: folder of images (recursive) or of tar shards, list of paths (.txt), pattern of tar shards
            ('train-{000..099}.tar'), COCO JSON, or folder of a COCO data set.
        proposals: folder written by `ccop-pretrain proposals` for these images.
        out: folder for the picture sheets and the table.
        count: number of images on the sheets.
        draws: number of view pairs drawn for the table.
        seed: seed of the run to preview.
    """

    TOPIC: ClassVar[str] = "Pictures"

    images: Path
    proposals: Path
    out: Path
    _: KW_ONLY
    count: PositiveInt = 6
    draws: PositiveInt = 200
    seed: Seed = 0


@dataclass(frozen=True)
class ProposalSettings(ReadingSettings):
    """Find object proposals in a set of images by selective search.

    Args:
        images: folder of images (recursive) or of tar shards, list of paths (.txt), pattern of tar shards
            ('train-{000..099}.tar'), COCO JSON, or folder of a COCO data set.
        out: folder for the Parquet shards, the manifest, settings.yaml and skipped.csv.
        workers: number of processes; all cores by default. Does not affect the result.
        mode: `fast` (the paper's) or `quality` (more boxes before the NMS, several times slower).
        engine: `fast` (over ten times as fast as OpenCV) or `opencv` (exactly the authors' boxes; takes about 200 bytes
            of memory per pixel and worker).
        max_side: search a copy of the image whose longest side has this many pixels; by default, the image itself, or a
            copy of 16.8 megapixels if it is larger. Boxes are always in pixels of the original. 300 takes a sixth of
            the time of 640 x 427 and finds fewer objects.
        keep: maximum number of boxes kept per image.
        seed: seed of the random scores with which non-maximum suppression ranks overlapping boxes.
        resume: resume an unfinished run with the same settings in `out`; --no-resume refuses any existing proposals.
        overwrite: start over, replacing the proposals in `out`.
        shard: search only part I of N, as I/N with I from 1, for N machines that share `out`; afterwards, run the
            command without --shard to merge the parts.
        merge: folders to merge that other machines wrote with --shard, if they do not share `out`.
        from_coco: COCO JSON to import boxes from instead of searching.
        to_coco: also write the proposals to this COCO JSON, in the format of the authors' script.
        check: only report coverage and boxes per image; with --ground-truth, also recall and overlap.
        ground_truth: COCO instance annotations of the same images, for --check.
    """

    TOPIC: ClassVar[str] = "Search"

    images: Path
    out: Path
    _: KW_ONLY
    workers: PositiveInt | None = None
    mode: Literal["fast", "quality"] = "fast"
    engine: Literal["fast", "opencv"] = "fast"
    max_side: PositiveInt | None = None
    keep: PositiveInt = 50
    seed: Seed = 0
    resume: bool = True
    overwrite: bool = False
    shard: Part | None = None
    merge: Annotated[list[Path], Len(1)] | None = None
    from_coco: Path | None = None
    to_coco: Path | None = None
    check: bool = False
    ground_truth: Path | None = None

    def check_together(self) -> None:
        """Reject incompatible flags."""
        super().check_together()
        asked = {"--shard": self.shard, "--merge": self.merge, "--from-coco": self.from_coco, "--check": self.check}
        given = [name for name, value in asked.items() if value]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} cannot be combined: use only one of them")
        if self.shard and (self.overwrite or self.to_coco):
            other = "--overwrite" if self.overwrite else "--to-coco"
            raise UserError(f"{other} applies to the whole result, not to one part: remove {other} or --shard")
        if self.ground_truth and not self.check:
            raise UserError("--ground-truth is used only by --check: add --check")


@dataclass(frozen=True)
class PlanSettings(ObjectiveSettings, ViewSettings, OptimisationSettings):
    """Estimate time, memory, disk space and energy of proposals, pre-training and evaluation.

    Measures each for a moment on this machine, with the settings of the planned run, unless `rates` are given.

    Args:
        images: number of images in the planned project.
        backbone: name of any timm ResNet.
        devices: number of GPUs on one machine; without GPUs, number of machines like this one.
        precision: `float32`, or autocast of the networks to `bf16` or `fp16` (GPU only).
        channels_last: keep images and convolutions in the channels-last memory layout.
        activation_checkpointing: recompute activations in the backward pass instead of storing them.
        accelerator: `auto` (a GPU if there is one), `cpu`, `gpu`, `cuda` or `mps`.
        workers: processes that search, and data-loading processes per training process; by default, as many as the
            planned commands use by default.
        sample: images like the planned ones, in any form that `ccop-pretrain run` takes; by default, synthetic ones of
            `sample_side`.
        sample_side: longest side of the synthetic images in pixels.
        eval_images: number of labelled images that the linear probe and kNN read; as many as `images` by default.
        eval_passes: how often they are read in all; by default ten epochs of the linear probe, its scoring and kNN.
        eval_size: side of the square images in the evaluation, in pixels.
        core_watts: power of a busy processor core; the default of the Green Algorithms calculator.
        device_watts: power of a busy GPU; by default the maximum of an A100 (SXM).
        scaling: speed of several devices, as a fraction of their number times one device's.
        rates: JSON file of rates to use instead of measuring: the output of this command with --json, here or on
            another machine.
        out: folder of the planned results, to compare the disk space with.
    """

    TOPIC: ClassVar[str] = "Planning"

    images: PositiveInt
    _: KW_ONLY
    backbone: str = "resnet50"
    devices: PositiveInt = 1
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    channels_last: bool = True
    activation_checkpointing: bool = False
    accelerator: Accelerator = "auto"
    workers: PositiveInt | None = None
    sample: Path | None = None
    sample_side: SceneSize = 640
    eval_images: NonNegativeInt | None = None
    eval_passes: NonNegativeFloat = EVALUATION_PASSES
    eval_size: Annotated[int, Ge(32)] = 224
    core_watts: NonNegativeFloat = CORE_WATTS
    device_watts: NonNegativeFloat = GPU_WATTS
    scaling: Annotated[float, Interval(gt=0, le=1)] = SCALING
    rates: Path | None = None
    out: Path = Path()

    def check_together(self) -> None:
        """Reject half precision on a processor, and a batch that cannot be divided between the devices."""
        super().check_together()
        if self.precision == "fp16" and self.accelerator == "cpu":
            raise UserError("--precision fp16 needs a GPU: use bf16, or remove --accelerator cpu")
        if self.batch_size % self.devices:
            raise UserError(
                f"--batch-size {self.batch_size} cannot be divided between {self.devices} devices: give a multiple of "
                f"{self.devices}"
            )


@dataclass(frozen=True)
class SceneSettings(Validated):
    """Draw a synthetic data set in COCO format; nothing is downloaded.

    Args:
        out: folder for the images, the annotations, the label images and the crops.
        images: total number of images.
        val_share: fraction of the images in the val split.
        size: longest side of an image, in pixels; the other side varies.
        clutter: from 0 (few large, mostly separate objects on a faint background) to 1 (many overlapping objects of any
            size on a textured background); use a low value to train a detector on few images.
        seed: seed of all random draws; an image depends only on the seed, its split and its number.
        workers: number of processes; all cores by default. Does not affect the result.
        resume: resume an unfinished set with the same settings in `out`; --no-resume refuses any existing set.
        overwrite: start over, replacing the set in `out`.
    """

    out: Path
    _: KW_ONLY
    images: Annotated[int, Ge(2)] = 600
    val_share: Annotated[float, Gt(0), Lt(1)] = 0.25
    size: SceneSize = 320
    clutter: Share = 1.0
    seed: Seed = 0
    workers: PositiveInt | None = None
    resume: bool = True
    overwrite: bool = False
