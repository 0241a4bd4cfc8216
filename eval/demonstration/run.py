"""Classify squares of synthetic images as object or background, by the features of two networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from ccop_hub.architectures import STAGES
from ccop_hub.embedding.extraction import batches, choose_device
from ccop_hub.formats.checkpoint import Weights
from ccop_hub.frozen_network import FrozenNetwork
from ccop_hub.progress import Progress, tracked
from ccop_hub.sources.registry import packaged_name
from ccop_hub.sources.resolve import RANDOM, resolve

from ..frozen.neighbours import class_votes, nearest_neighbours
from ..protocols import RegionProtocol
from ..region_probe.balanced import Standardiser
from ..results.intervals import PairedIntervals, Statistic, bootstrap
from ..settings import DemoSettings
from .patches import CLASSES, Patches, draw_patches

LABELLED, SCORED = 400, 400
"""Squares per class: those with known classes, and those to classify."""

UNTRAINED, TRAINED = "untrained", "trained"
"""Keys of the two networks."""

ACCURACY = "accuracy"

_BATCH = 50
_LABELLED_DRAW, _SCORED_DRAW, _NOISE_DRAW = range(3)


@dataclass(frozen=True)
class Demonstration:
    """How well squares of synthetic images are classified as object or background, by the features of two networks.

    Attributes:
        weights: name of the trained weights.
        backbone: timm name of both networks.
        accuracy: `trained` and `untrained` -> correct squares, in percent.
        intervals: the same keys -> 95 % interval, (low, high).
        difference: trained minus untrained, with its 95 % interval: (value, low, high).
        chance: accuracy of guessing, in percent.
        labelled: number of squares with known classes.
        scored: number of squares that were classified.
        noise: whether the images were replaced with noise.
    """

    weights: str
    backbone: str
    accuracy: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    difference: tuple[float, float, float]
    chance: float
    labelled: int
    scored: int
    noise: bool

    def document(self) -> dict[str, Any]:
        """The result as JSON-serialisable values."""
        return {
            "weights": self.weights,
            "backbone": self.backbone,
            **self.accuracy,
            "intervals": {name: list(limits) for name, limits in self.intervals.items()},
            "difference": dict(zip(("value", "low", "high"), self.difference, strict=True)),
            "chance": self.chance,
            "classes": list(CLASSES),
            "labelled": self.labelled,
            "scored": self.scored,
            "noise": self.noise,
        }


def run(settings: DemoSettings) -> Demonstration:
    """Draw squares, and classify them by their nearest neighbours in the features of both networks.

    Raises:
        UserError: the weights cannot be loaded, or the device is missing.
    """
    device = choose_device(settings.accelerator)
    trained = resolve(settings.weights or packaged_name(), seed=settings.seed)
    weights = {UNTRAINED: resolve(RANDOM, trained.arch, settings.seed), TRAINED: trained}
    with Progress("drawing", len(CLASSES) * (LABELLED + SCORED), unit="squares") as progress:
        labelled = draw_patches(settings.seed, _LABELLED_DRAW, LABELLED, progress)
        scored = draw_patches(settings.seed, _SCORED_DRAW, SCORED, progress)
    if settings.noise:
        generator = np.random.default_rng(np.random.SeedSequence(settings.seed, spawn_key=(_NOISE_DRAW,)))
        for squares in (labelled, scored):
            squares.pixels[...] = generator.integers(0, 256, squares.pixels.shape, np.uint8)
    hits = {name: _hits(weights[name], name, labelled, scored, device) for name in weights}
    statistics = {name: _statistic(scored, values) for name, values in hits.items()}
    spread = bootstrap(scored.images, statistics[TRAINED], statistics[UNTRAINED], settings.seed)
    accuracy = {name: 100 * float(values.mean()) for name, values in hits.items()}
    return _demonstration(settings, trained, accuracy, spread)


def _demonstration(
    settings: DemoSettings, trained: Weights, accuracy: Mapping[str, float], spread: PairedIntervals
) -> Demonstration:
    paired = spread.paired[ACCURACY]
    return Demonstration(
        weights=trained.name,
        backbone=trained.arch,
        accuracy=accuracy,
        intervals={UNTRAINED: spread.against[ACCURACY], TRAINED: spread.own[ACCURACY]},
        difference=(paired.difference, paired.low, paired.high),
        chance=100 / len(CLASSES),
        labelled=len(CLASSES) * LABELLED,
        scored=len(CLASSES) * SCORED,
        noise=settings.noise,
    )


def _hits(
    weights: Weights, name: str, labelled: Patches, scored: Patches, device: torch.device
) -> npt.NDArray[np.bool_]:
    """Whether each scored square is classified correctly: (N,) bool."""
    network = FrozenNetwork(weights).to(device)
    total = len(labelled.pixels) + len(scored.pixels)
    pixels = (square for squares in (labelled, scored) for square in squares.pixels)
    features = np.concatenate(
        list(_features(network, tracked(pixels, f"{name} network", total, unit="squares"), device))
    )
    bank, queries = np.split(features, [len(labelled.pixels)])
    protocol = RegionProtocol()
    similarity, index = nearest_neighbours(bank, queries, protocol.neighbours, device, Standardiser.of(bank))
    votes = class_votes(similarity, index, labelled.labels.tolist(), protocol.neighbours, protocol.temperature)
    hits: npt.NDArray[np.bool_] = votes.argmax(1).numpy() == scored.labels
    return hits


@torch.no_grad()
def _features(
    network: FrozenNetwork, pixels: Iterator[npt.NDArray[np.uint8]], device: torch.device
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the averaged and L2-normalised features of all stages, concatenated, of batches of squares: (n, D)."""
    for batch in batches(pixels, _BATCH):
        images = torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2).to(device)
        stages = network.stages(images)
        averages: list[Tensor] = [F.normalize(stages[name].float().mean((2, 3)), dim=1) for name in STAGES]
        yield torch.cat(averages, dim=1).cpu().numpy()


def _statistic(scored: Patches, hits: npt.NDArray[np.bool_]) -> Statistic:
    """Make a statistic: the accuracy, in percent, from how often each image was drawn."""
    correct = np.bincount(scored.owners, weights=hits, minlength=scored.images)
    squares = np.bincount(scored.owners, minlength=scored.images)
    return lambda counts: {ACCURACY: float(100 * (counts @ correct) / (counts @ squares))}
