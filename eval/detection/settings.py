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
        data: folder of a COCO-format data set with any classes: train2017/, val2017/ and
            annotations/instances_{train,val}2017.json.
        out: folder for result.json, the picture sheet, the settings and Detectron2's own files.
        arch: backbone, as timm names it (resnet18, resnet34, resnet50, resnet101); read from the weights if not given.
        protocol: id of the evaluation protocol; a result means nothing without it.
        seed: seed of the new layers' initial weights, the data order and the augmentation.
        load: what of the weights to use, "backbone+fpn" or "backbone"; the rest starts at random.
        iterations: length of the training in iterations of one batch; the protocol's own if not given. Steps and
            warm-up shrink with it.
        batch_size: images a training step, over all processes; the protocol's own if not given. Learning rate, steps
            and warm-up follow by the linear rule.
        device: "cuda", "cpu" or "auto" (a GPU where there is one).
        workers: processes that read images; 0 reads them in the training process.
        overwrite: whether to replace a finished result in the output folder.
    """

    weights: str
    data: Path
    out: Path
    arch: str | None = None
    protocol: str = DEFAULT_PROTOCOL
    seed: int = 0
    load: LoadedParts = "backbone+fpn"
    iterations: int | None = None
    batch_size: int | None = None
    device: Literal["auto", "cuda", "cpu"] = "auto"
    workers: int = 2
    overwrite: bool = False
