"""Measure reading images and computing their features, as the linear probe and kNN do."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import IterableDataset
from torchvision.transforms import v2

from ccop_hub.architectures import build_resnet_fpn
from ccop_hub.image_sources.source import open_source
from ccop_hub.image_sources.stored_images import ImageSource
from ccop_hub.limits import DEFAULT_WORKERS
from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD
from ccop_hub.readers import Reader

from ..common.process_memory import memory_in_use

MEASURED_SECONDS = 8.0
"""Time for measuring, after the data-loading processes have started."""

BATCH = 256
"""Batch size of the linear probe, by default; kNN's batches are smaller."""


LIBRARIES = ("lightning.fabric", "torchmetrics", "matplotlib.pyplot")
"""Libraries that the evaluations also load, and whose memory counts."""


@dataclass(frozen=True)
class FeatureJob:
    """Features to measure.

    Attributes:
        backbone: name of a timm ResNet.
        side: side of the square images in pixels.
        images: folder of the sample.
        gpu: whether to use a GPU.
    """

    backbone: str
    side: int
    images: Path
    gpu: bool


@dataclass(frozen=True)
class FeatureRates:
    """See the fields of the same names in `estimates.Rates`."""

    feature_seconds: float
    feature_memory: int
    feature_dim: int


class EndlessImages(IterableDataset[Tensor]):
    """The sample again and again, cropped as in an evaluation: (3, S, S) uint8."""

    def __init__(self, source: ImageSource, side: int) -> None:
        self.source = source
        self.transform = v2.Compose([v2.Resize(side), v2.CenterCrop(side), v2.PILToTensor()])

    def __iter__(self) -> Iterator[Tensor]:
        for stored in itertools.cycle(self.source):
            yield self.transform(stored.read())


@torch.inference_mode()
def measure_features(job: FeatureJob) -> FeatureRates:
    """Read images and compute their features for a while; call it in a new process."""
    for library in LIBRARIES:
        importlib.import_module(library)
    device = torch.device("cuda" if job.gpu else "cpu")
    network = build_resnet_fpn(job.backbone, seed=0).to(device).eval()
    mean, std = (torch.tensor(values, device=device).view(-1, 1, 1) for values in (PIXEL_MEAN, PIXEL_STD))
    images = EndlessImages(open_source(job.images), job.side)
    loader = Reader(images, batch_size=BATCH, num_workers=DEFAULT_WORKERS, pin_memory=job.gpu)
    begun, seen, width = 0.0, -3 * BATCH, 0  # the first batches are loaded in advance
    for batch in loader:
        # As a `FrozenNetwork` does, with all stages in memory at the same time. On a GPU, copying the features back
        # waits for them, as the evaluations do.
        stages = network.stages((batch.to(device).float() - mean) / std)
        width = stages["res5"].mean((2, 3)).cpu().shape[1]
        seen += BATCH
        if seen == 0:
            begun = time.perf_counter()
        if seen > 0 and time.perf_counter() - begun > MEASURED_SECONDS:
            break
    seconds = (time.perf_counter() - begun) / seen
    return FeatureRates(seconds, memory_in_use(), width)
