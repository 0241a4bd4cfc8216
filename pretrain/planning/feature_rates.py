"""Measure reading images and computing their features, as the linear probe and kNN do."""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from torchvision.transforms import v2

from ccop_hub.architectures import build_backbone
from ccop_hub.image_sources.source import open_source
from ccop_hub.image_sources.stored_images import ImageSource
from ccop_hub.readers import Reader

from ..common.process_memory import memory_in_use

MEASURED_SECONDS = 8.0
"""Time for measuring, after the data-loading processes have started."""

BATCH = 256
WORKERS = 2
"""Batch size and data-loading processes of the linear probe, by default; kNN's batches are smaller."""


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
    network: nn.Module = build_backbone(job.backbone).to(device).eval()
    images = EndlessImages(open_source(job.images), job.side)
    loader = Reader(images, batch_size=BATCH, num_workers=WORKERS, pin_memory=job.gpu)
    begun, seen, width = 0.0, -3 * BATCH, 0  # the first batches are loaded in advance
    for batch in loader:
        # On a GPU, copying the features back waits for them, as the evaluations do.
        width = network(batch.to(device).float()).cpu().shape[1]
        seen += BATCH
        if seen == 0:
            begun = time.perf_counter()
        if seen > 0 and time.perf_counter() - begun > MEASURED_SECONDS:
            break
    seconds = (time.perf_counter() - begun) / seen
    return FeatureRates(seconds, memory_in_use(), width)
