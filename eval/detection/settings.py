"""Settings of the detection commands; they import nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

DEFAULT_PROTOCOL = "coco-fpn-4conv1fc-1x"
"""The protocol that the paper and most of the field compare by."""

LoadedParts = Literal["backbone", "backbone+fpn"]
"""What of the weights goes into the detector."""


@dataclasses.dataclass(frozen=True)
class InstallSettings:
    """Bring Detectron2, the detection engine, into this Python environment; it takes no settings."""


@dataclasses.dataclass(frozen=True)
class DetectionSettings:
    """Train Detectron2's Mask R-CNN from pre-trained weights and measure box and mask AP.

    Args:
        weights: a registry name, a file or folder, hf-hub:org/name[@rev], or "random" (needs --arch).
        data: a folder in COCO's layout with any classes (train2017/, val2017/ and
            annotations/instances_{train,val}2017.json), in Pascal VOC's (VOC2007/, VOC2012/) or in Cityscapes'
            (leftImg8bit/, gtFine/); or coco, voc or cityscapes, found by $COCO_DIR or $DETECTRON2_DATASETS.
        out: folder for result.json, the picture sheet, the settings and Detectron2's own files.
        arch: backbone, as timm names it (resnet18, resnet34, resnet50, resnet101); read from the weights if not given.
        protocol: id of the evaluation protocol; a result means nothing without it.
        against: second weights, trained and scored by the same seed, settings and data order, for a paired comparison;
            their own files go to OUT/against.
        seed: seed of the new layers' initial weights, the data order, the augmentation and the choice of --few-images.
        load: what of the weights to use, "backbone+fpn" or "backbone"; the rest starts at random.
        few_images: train on this part of the training images alone, chosen by the seed; the length stays.
        iterations: length of the training in iterations of one batch; the protocol's own if not given. Steps and
            warm-up shrink with it.
        batch_size: images a training step, over all processes. If not given, as many a GPU as the protocol has on its
            own number of GPUs. Learning rate, length, steps and warm-up follow by the linear rule.
        gpus: GPUs on this machine, a process each; 1 is also a CPU's.
        num_machines: machines with that many GPUs each, all running this command.
        machine_rank: number of this machine, from 0; machine 0 writes the result.
        dist_url: where the processes meet, tcp://HOST:PORT of machine 0; "auto" for one machine.
        checkpoint_period: iterations between checkpoints, from which --resume goes on; the protocol's own if not given.
        eval_period: iterations between scorings during the training, for a learning curve of AP; 0 scores at its end.
        device: "cuda", "cpu" or "auto" (a GPU where there is one).
        workers: processes that read images, for each GPU; 0 reads them in the training process.
        resume: go on from the last checkpoint in the output folder, if there is one.
        eval_only: score the finished training in the output folder again, without training.
        overwrite: replace what an earlier run left in the output folder.
    """

    weights: str
    data: str
    out: Path
    arch: str | None = None
    protocol: str = DEFAULT_PROTOCOL
    against: str | None = None
    seed: int = 0
    load: LoadedParts = "backbone+fpn"
    few_images: Literal["1%", "5%", "10%"] | None = None
    iterations: int | None = None
    batch_size: int | None = None
    gpus: int = 1
    num_machines: int = 1
    machine_rank: int = 0
    dist_url: str = "auto"
    checkpoint_period: int | None = None
    eval_period: int | None = None
    device: Literal["auto", "cuda", "cpu"] = "auto"
    workers: int = 2
    resume: bool = False
    eval_only: bool = False
    overwrite: bool = False

    @property
    def processes(self) -> int:
        """Training processes over all machines, one a GPU."""
        return self.gpus * self.num_machines
