"""Settings of every command of `ccop-pretrain`; nothing here imports torch, so that `--help` answers at once.

Every default of a run is the paper's, as the authors' code has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ccop_hub.images import MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class ReadingSettings:
    """Which images of a data set are left out, and how many may be.

    Args:
        max_pixels: width x height beyond which an image is left out, undecoded; it may exceed Pillow's own limit. An
            image takes about 3 bytes a pixel in each process that reads it, and ten times that to be searched.
        max_unreadable: share of the images (0 to 1) that may be unreadable or left out; beyond it the command stops.
    """

    max_pixels: int = MAX_PIXELS
    max_unreadable: float = 0.01


@dataclass(frozen=True)
class ObjectiveSettings:
    """The CCOP objective; a loss weight of 0 switches that loss, and what only it needs, off.

    Args:
        objective: `ccop` (image, box and intra-image losses) or `mocov2` (the image loss alone).
        temperature_image: InfoNCE temperature of the image loss.
        temperature_box: InfoNCE temperature of the box loss.
        momentum: share of the key encoder kept at each moving-average step.
        image_queue: image keys kept as negatives.
        box_queue: box keys kept as negatives.
        queue_end: what happens to box keys that run past the queue's end: `drop` them (the authors' code) or `wrap`.
        jitters: jittered copies of each key box; the unjittered box is one more candidate.
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

    objective: Literal["ccop", "mocov2"] = "ccop"
    temperature_image: float = 0.2
    temperature_box: float = 0.2
    momentum: float = 0.999
    image_queue: int = 65536
    box_queue: int = 65536
    queue_end: Literal["drop", "wrap"] = "drop"
    jitters: int = 10
    iou_threshold: tuple[float, float] = (0.8, 0.4)
    centre_magnitude: tuple[float, float] = (0.15, 0.6)
    size_magnitude: tuple[float, float] = (0.35, 1.4)
    intra_iou: float = 0.05
    intra_margin: float = 0.4
    dropout: float = 0.1
    embedding_dim: int = 128
    hidden_dim: int = 2048
    weight_image: float = 1.0
    weight_box: float = 1.0
    weight_intra: float = 1.0

    @property
    def uses_boxes(self) -> bool:
        """Whether any loss looks at boxes, so that proposals are needed."""
        return self.objective == "ccop" and (self.weight_box != 0 or self.weight_intra != 0)


@dataclass(frozen=True)
class ViewSettings:
    """How the two views of an image are cut out of it, and which boxes survive in both.

    Args:
        image_size: side of both views in pixels; the pyramid levels of the boxes scale with it.
        crop_area: smallest and largest area of a crop, as a share of the image.
        crop_ratio: smallest and largest width over height of a crop.
        crop_tries: crops drawn for one view until enough boxes are kept; the best one counts, the last among equals.
        min_boxes: boxes that a crop must keep to be taken at once.
        kept_share: a crop keeps a box if more than this share of the box's area is inside.
        min_box_area: smallest area of a box in a view, in square pixels at 224 pixels; scales with the image size.
        max_boxes: proposals used of one image, the first ones in the order of their seeded random scores.
    """

    image_size: int = 224
    crop_area: tuple[float, float] = (0.1, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_tries: int = 10
    min_boxes: int = 1
    kept_share: float = 0.6
    min_box_area: float = 144.0
    max_boxes: int = 100


@dataclass(frozen=True)
class OptimisationSettings:
    """SGD with a warm-up and a cosine.

    Args:
        epochs: passes over the images; the last, partial batch of a pass is left out.
        steps: length of the run in steps, in place of `epochs`.
        batch_size: images in a step, over all processes together.
        micro_batches: equal parts, two images or more each, that a process's share of a batch goes through the encoders
            in, one after the other (gradient accumulation); the memory of one part. Batch norm has a part's statistics.
        lr: peak learning rate for 256 images a step; scaled linearly with the batch.
        sgd_momentum: momentum of SGD.
        weight_decay: weight decay of every parameter, biases and batch norm included.
        warmup_epochs: epochs of linear warm-up, step by step; never more than half of the run.
        warmup_start: share of the learning rate that the warm-up starts from.
    """

    epochs: int = 800
    steps: int | None = None
    batch_size: int = 256
    micro_batches: int = 1
    lr: float = 0.3
    sgd_momentum: float = 0.9
    weight_decay: float = 1e-4
    warmup_epochs: float = 10.0
    warmup_start: float = 1e-4


@dataclass(frozen=True, kw_only=True)
class RunSettings(ObjectiveSettings, ViewSettings, OptimisationSettings, ReadingSettings):
    """One pre-training run.

    Args:
        images: folder of images (recursive) or of tar shards, list of paths (.txt), pattern of tar shards
            ('train-{000..099}.tar'), COCO JSON, or folder of a COCO data set.
        out: the run's folder; an unfinished run of the same settings in it is continued.
        proposals: folder written by `ccop-pretrain proposals` for the same `images`; not needed by `mocov2`.
        backbone: name of any timm ResNet.
        init: weights to start from, by any name that the hub resolves (registry name, file, folder, hf-hub:ORG/NAME);
            random ones of `seed` if not given. Heads and queues start at random either way.
        precision: `float32`, or autocast of the networks to `bf16` or `fp16` (GPU only); geometry of boxes,
            augmentation, similarities and losses stay float32.
        channels_last: keep images and convolutions in the channels-last memory layout, which tensor cores prefer.
        compile: compile both encoders with torch.compile; takes minutes at the start.
        activation_checkpointing: compute activations inside the query encoder's blocks again in the backward pass, in
            place of keeping them: less memory, more time.
        seed: seed of the initial weights and of every random draw.
        devices: processes of a machine, one per GPU; `auto` takes every GPU, or one process on a CPU.
        num_nodes: machines to train on, `devices` processes each; torchrun or SLURM starts them.
        accelerator: where to train, by Lightning's name (`auto`, `cpu`, `gpu`).
        workers: processes that read and crop images, per training process; by default one a core, at most 8. The
            result does not depend on it.
        log_every: steps between two rows of metrics.csv.
        save_every: steps between two checkpoints; the last two are kept.
        pictures: images on the picture sheets in the run's folder; 0 draws none.
        tensorboard: write the figures of metrics.csv for TensorBoard as well.
        wandb: project of Weights & Biases to send the figures to as well; needs the package `wandb`.
        probe: folder with one folder of images a class; its kNN accuracy is one more figure.
        probe_every: epochs between two probes.
        resume: resume an unfinished run of the same settings in `out`; with --no-resume, any run there is refused.
        overwrite: start anew where the folder already holds a run.
    """

    images: Path
    out: Path
    proposals: Path | None = None
    backbone: str = "resnet50"
    init: str | None = None
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    channels_last: bool = False
    compile: bool = False
    activation_checkpointing: bool = False
    seed: int = 0
    devices: int | Literal["auto"] = "auto"
    num_nodes: int = 1
    accelerator: str = "auto"
    workers: int | None = None
    log_every: int = 50
    save_every: int = 500
    pictures: int = 3
    tensorboard: bool = True
    wandb: str | None = None
    probe: Path | None = None
    probe_every: float = 10.0
    resume: bool = True
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class InspectSettings(ObjectiveSettings, ViewSettings, ReadingSettings):
    """Picture sheets of what a run would see.

    Args:
        images: folder of images (recursive) or of tar shards, list of paths (.txt), pattern of tar shards
            ('train-{000..099}.tar'), COCO JSON, or folder of a COCO data set.
        proposals: folder written by `ccop-pretrain proposals` for these images.
        out: folder for the sheets and the table.
        count: images drawn on the sheets.
        draws: draws of two views that the table is made from.
        seed: seed of the run to look at.
    """

    images: Path
    proposals: Path
    out: Path
    count: int = 6
    draws: int = 200
    seed: int = 0


@dataclass(frozen=True)
class ProposalSettings(ReadingSettings):
    """Selective-search proposals of a set of images.

    Args:
        images: folder of images (recursive) or of tar shards, list of paths (.txt), pattern of tar shards
            ('train-{000..099}.tar'), COCO JSON, or folder of a COCO data set.
        out: folder for the Parquet shards, the manifest, settings.yaml and skipped.csv.
        workers: number of processes; all cores if not given. The result does not depend on it.
        mode: `fast` (the paper's) or `quality` (more boxes before the NMS, several times slower).
        engine: what searches: `fast`, ten times as fast as OpenCV and more, or `opencv`, for the authors' very boxes.
        max_side: longest side, in pixels, of the copy that is searched; the image as it is if not given. Boxes are in
            pixels of the original either way. 300 takes a sixth of the time of 640 x 427 and finds fewer objects.
        keep: most boxes kept an image.
        seed: of the random scores that the non-maximum suppression ranks overlapping boxes by.
        resume: resume what a run of the same settings left in `out`; with --no-resume, any proposals there are refused.
        overwrite: throw away the proposals that `out` holds and begin anew.
        shard: I/N: search the I-th of N parts (I from 1), on one of N machines that share `out`; the same command
            without it then makes the result of all parts.
        merge: folders that other machines have written with --shard where there is no shared one; their rows are taken
            over into `out`.
        from_coco: COCO JSON to take the boxes from, in place of a search.
        to_coco: COCO JSON to write the proposals to as well, one file in the format of the authors' script.
        check: make nothing; report coverage and boxes an image, and with --ground-truth recall and overlap.
        ground_truth: COCO instance JSON of the same images that --check compares with.
    """

    images: Path
    out: Path
    workers: int | None = None
    mode: Literal["fast", "quality"] = "fast"
    engine: Literal["fast", "opencv"] = "fast"
    max_side: int | None = None
    keep: int = 50
    seed: int = 0
    resume: bool = True
    overwrite: bool = False
    shard: str | None = None
    merge: list[Path] | None = None
    from_coco: Path | None = None
    to_coco: Path | None = None
    check: bool = False
    ground_truth: Path | None = None


@dataclass(frozen=True)
class SceneSettings:
    """A procedurally drawn data set in COCO's layout: nothing to download.

    Args:
        out: folder for the images, the annotations, the label images and the crops.
        images: number of images in all.
        val_share: share of the images that make up the val split (0 to 1, exclusive).
        size: longest side of an image, in pixels; the other side varies from image to image.
        clutter: 0 (a few large objects, mostly apart, over a faint background) to 1 (many of any size that hide each
            other, over a textured background); a detector learns from few images only where it is low.
        seed: of every random draw; an image depends on it, on its split and on its number alone.
        workers: number of processes; all cores if not given. The result does not depend on it.
        resume: resume an unfinished set of the same settings in `out`; with --no-resume, any set there is refused.
        overwrite: replace a scene set that `out` holds.
    """

    out: Path
    images: int = 600
    val_share: float = 0.25
    size: int = 320
    clutter: float = 1.0
    seed: int = 0
    workers: int | None = None
    resume: bool = True
    overwrite: bool = False
