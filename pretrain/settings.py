"""Settings of every command of `ccop-pretrain`; nothing here imports torch, so that `--help` is fast.

Every default of a run is the paper's, as the authors' code has it.
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

Accelerator = Literal["auto", "cpu", "gpu", "cuda", "mps"]
"""Where to train; `auto` takes a GPU where there is one."""

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
"""Share of an average that a step keeps."""


def _is_shard(text: str) -> bool:
    place, slash, of = text.partition("/")
    return bool(slash) and place.isdecimal() and of.isdecimal() and 1 <= int(place) <= int(of)


SceneSize = Annotated[int, Ge(96)]
"""Pixels: below 96, objects of a synthetic image are too small to distinguish their shapes."""

Part = Annotated[str, Predicate(_is_shard), Described("I/N, with I from 1 to N")]
"""One of N parts of a set of images."""


@dataclass(frozen=True, kw_only=True)
class ReadingSettings(Validated):
    """Which images of a data set are left out, and how many may be.

    Args:
        max_pixels: largest width x height of an image that is read; it may exceed Pillow's own limit. An image takes
            about 3 bytes per pixel in each process that reads it, and ten times that when it is searched.
        max_unreadable: largest share of the images that may be unreadable or left out before the command stops.
    """

    TOPIC: ClassVar[str] = "Reading images"

    max_pixels: PositiveInt = MAX_PIXELS
    max_unreadable: Share = 0.01


@dataclass(frozen=True, kw_only=True)
class ObjectiveSettings(Validated):
    """The CCOP objective; a loss weight of 0 switches off that loss and whatever only that loss needs.

    Args:
        objective: `ccop` (image, box and intra-image losses) or `mocov2` (only the image loss).
        temperature_image: InfoNCE temperature of the image loss.
        temperature_box: InfoNCE temperature of the box loss.
        momentum: share of the key encoder that each moving-average step keeps; 1 freezes it.
        image_queue: image keys kept as negatives.
        box_queue: box keys kept as negatives.
        queue_end: what happens to box keys that exceed the end of the queue: `drop` them (the authors' code) or `wrap`.
        jitters: jittered copies of each key box; the box itself is one more candidate.
        iou_threshold: smallest IoU of a valid jitter with its box, at the start and the end of training.
        centre_magnitude: width of the uniform centre shift, in box sizes, at the start and the end of training.
        size_magnitude: width of the uniform log-size change, at the start and the end of training.
        intra_iou: key boxes of one image below this IoU count as two objects in the intra-image loss.
        intra_margin: margin of the intra-image hinge, in cosine similarity.
        dropout: dropout probability in both heads, of the query and of the key encoder.
        embedding_dim: length of the image and the box embedding.
        hidden_dim: hidden units of both heads.
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
        """Whether any loss looks at boxes, so that proposals are needed."""
        return self.objective == "ccop" and (self.weight_box != 0 or self.weight_intra != 0)

    def check_together(self) -> None:
        """Refuse an objective without any loss."""
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
            raise UserError(f"every loss of --objective {self.objective} has weight 0: give one a weight above 0")


@dataclass(frozen=True, kw_only=True)
class ViewSettings(Validated):
    """How the two views of an image are cropped, and which boxes are kept in both.

    Args:
        image_size: side of both views in pixels; the pyramid levels of the boxes scale with it.
        crop_area: smallest and largest area of a crop, as a share of the image.
        crop_ratio: smallest and largest width over height of a crop.
        crop_tries: crops drawn for one view until enough boxes are kept; the best one is taken, the last among equals.
        min_boxes: boxes that a crop must keep to be taken at once.
        kept_share: a crop keeps a box if more than this share of the box's area is inside.
        min_box_area: smallest area of a box in a view, in square pixels at 224 pixels; scales with the image size.
        max_boxes: proposals used per image, the first ones in the order of their seeded random scores.
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


@dataclass(frozen=True, kw_only=True)
class OptimisationSettings(Validated):
    """SGD with a warm-up and a cosine schedule.

    Args:
        epochs: passes over the images; the last, partial batch of a pass is left out.
        steps: length of the run in steps, in place of `epochs`.
        batch_size: images per step, over all processes together.
        micro_batches: equal parts, two images or more each, that a process's share of a batch goes through the encoders
            in, one after the other (gradient accumulation), to save memory. Batch norm sees one part at a time.
        lr: peak learning rate for 256 images per step; scaled linearly with the batch.
        sgd_momentum: momentum of SGD.
        weight_decay: weight decay of every parameter, biases and batch norm included.
        warmup_epochs: epochs of linear warm-up, step by step; never more than half of the run.
        warmup_start: share of the learning rate that the warm-up starts from.
    """

    TOPIC: ClassVar[str] = "Optimisation"

    epochs: PositiveInt = 800
    steps: PositiveInt | None = None
    batch_size: PositiveInt = 256
    micro_batches: PositiveInt = 1
    lr: PositiveFloat = 0.3
    sgd_momentum: Momentum = 0.9
    weight_decay: NonNegativeFloat = 1e-4
    warmup_epochs: NonNegativeFloat = 10.0
    warmup_start: Share = 1e-4


@dataclass(frozen=True)
class RunSettings(ObjectiveSettings, ViewSettings, OptimisationSettings, ReadingSettings):
    """Pre-train a network on unlabelled images.

    Args:
        images: folder of images (recursive) or of tar shards, list of paths (.txt), pattern of tar shards
            ('train-{000..099}.tar'), COCO JSON, or folder of a COCO data set.
        out: the run's folder.
        proposals: folder written by `ccop-pretrain proposals` for the same `images`; `mocov2` needs none.
        backbone: name of any timm ResNet.
        init: weights to start from, by any name that the hub resolves (registry name, file, folder, hf-hub:ORG/NAME);
            random ones by default. Heads and queues start at random either way.
        precision: `float32`, or autocast of the networks to `bf16` or `fp16` (GPU only); box geometry, augmentation,
            similarities and losses stay in float32.
        channels_last: keep images and convolutions in the channels-last memory layout, which tensor cores prefer.
        compile: compile both encoders with torch.compile; takes minutes at the start.
        activation_checkpointing: recompute activations of the query encoder's blocks in the backward pass instead of
            keeping them: less memory, more time.
        seed: seed of the initial weights and of every random draw.
        devices: processes per machine, one for each GPU; `auto` takes every GPU, or one process on a CPU.
        num_nodes: machines to train on, with `devices` processes each; start them with torchrun or SLURM.
        accelerator: `auto` (a GPU where there is one), `cpu`, `gpu`, `cuda` or `mps`.
        workers: processes per training process that read and crop images; one per core, at most 8, by default. The
            result does not depend on it.
        log_every: steps between two rows of metrics.csv.
        save_every: steps between two checkpoints; the last two are kept.
        pictures: images on the picture sheets in the run's folder; 0 draws none.
        tensorboard: also write the figures of metrics.csv for TensorBoard.
        wandb: project of Weights & Biases to send the figures to as well; needs the package `wandb`.
        probe: folder with one folder of images per class; its kNN accuracy is logged as one more figure.
        probe_every: epochs between two probes.
        resume: resume an unfinished run of the same settings in `out`; with --no-resume, any run there is refused.
        overwrite: start anew, replacing the run in `out`.
    """

    TOPIC: ClassVar[str] = "Running"

    images: Path
    out: Path
    _: KW_ONLY
    proposals: Path | None = None
    backbone: str = "resnet50"
    init: str | None = None
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    channels_last: bool = False
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
    probe: Path | None = None
    probe_every: PositiveFloat = 10.0
    resume: bool = True
    overwrite: bool = False

    def check_together(self) -> None:
        """Refuse settings that exclude one another.

        Raises:
            UserError: no proposals though a loss needs boxes, half precision on a processor, or a compiled network
                that is told what to recompute.
        """
        super().check_together()
        if self.uses_boxes and self.proposals is None:
            raise UserError(
                f"the objective {self.objective!r} needs boxes: give --proposals DIR (`ccop-pretrain proposals "
                f"{self.images} --out DIR` makes them), or --objective mocov2"
            )
        if self.precision == "fp16" and self.accelerator == "cpu":
            raise UserError("--precision fp16 needs a GPU: give bf16, or leave --accelerator cpu out")
        if self.compile and self.activation_checkpointing:
            raise UserError(
                "--compile and --activation-checkpointing exclude one another: leave one out (a compiled network "
                "decides by itself what to recompute)"
            )


@dataclass(frozen=True)
class InspectSettings(ObjectiveSettings, ViewSettings, ReadingSettings):
    """Draw and count what a run would see.

    Args:
        images: folder of images (recursive) or of tar shards, list of paths (.txt), pattern of tar shards
            ('train-{000..099}.tar'), COCO JSON, or folder of a COCO data set.
        proposals: folder written by `ccop-pretrain proposals` for these images.
        out: folder for the sheets and the table.
        count: images drawn on the sheets.
        draws: draws of two views that the table is made from.
        seed: seed of the run to look at.
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
        workers: number of processes; all cores by default. The result does not depend on it.
        mode: `fast` (the paper's) or `quality` (more boxes before the NMS, several times slower).
        engine: `fast`, more than ten times as fast as OpenCV, or `opencv`, for exactly the authors' boxes.
        max_side: longest side, in pixels, of the copy that is searched; the image itself by default. Boxes are in
            pixels of the original either way. 300 takes a sixth of the time of 640 x 427 and finds fewer objects.
        keep: largest number of boxes kept per image.
        seed: seed of the random scores by which the non-maximum suppression ranks overlapping boxes.
        resume: resume what a run of the same settings left in `out`; with --no-resume, any proposals there are refused.
        overwrite: start anew, replacing the proposals in `out`.
        shard: I/N: search the I-th of N parts (I from 1), on one of N machines that share `out`; then run the command
            without --shard to merge the parts.
        merge: folders that other machines wrote with --shard, if they do not share `out`.
        from_coco: COCO JSON to take the boxes from, in place of a search.
        to_coco: COCO JSON to write the proposals to as well, one file in the format of the authors' script.
        check: make nothing; report coverage and boxes per image, and with --ground-truth recall and overlap.
        ground_truth: COCO instance JSON of the same images that --check compares with.
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
        """Refuse flags that ask for two different things."""
        super().check_together()
        asked = {"--shard": self.shard, "--merge": self.merge, "--from-coco": self.from_coco, "--check": self.check}
        given = [name for name, value in asked.items() if value]
        if len(given) > 1:
            raise UserError(f"{' and '.join(given)} exclude one another: give one of them")
        if self.shard and (self.overwrite or self.to_coco):
            other = "--overwrite" if self.overwrite else "--to-coco"
            raise UserError(f"{other} is for the whole result, not for one part: leave out {other} or --shard")
        if self.ground_truth and not self.check:
            raise UserError("--ground-truth is what --check compares with: add --check")


@dataclass(frozen=True)
class SceneSettings(Validated):
    """Draw a synthetic data set in COCO's layout; nothing is downloaded.

    Args:
        out: folder for the images, the annotations, the label images and the crops.
        images: total number of images.
        val_share: share of the images that make up the val split.
        size: longest side of an image, in pixels; the other side varies from image to image.
        clutter: 0 (a few large objects, mostly apart, over a faint background) to 1 (many objects of any size that
            hide each other, over a textured background); a detector learns from few images only if it is low.
        seed: seed of every random draw; an image depends only on the seed, its split and its number.
        workers: number of processes; all cores by default. The result does not depend on it.
        resume: resume an unfinished set of the same settings in `out`; with --no-resume, any set there is refused.
        overwrite: start anew, replacing the set in `out`.
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
