"""A kNN probe during training: are the nearest neighbours of an image of its class?"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import normalize

from ccop_hub.architectures import ResNetFPN
from ccop_hub.errors import UserError
from ccop_hub.images import UnreadableImageError
from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD

from ..images.skipped import SkippedImages
from ..images.source import open_source

LOG = logging.getLogger("ccop_pretrain.training.probe")

NEIGHBOURS = 20
"""Neighbours that vote, or all other images if there are fewer."""

BATCH = 64
"""Images embedded at a time."""

UNREAD = -1
"""Marks an image without a vote."""

RESAMPLES = 10_000
"""Bootstrap resamples of the images."""


class LabelledFolder:
    """A kNN probe on one folder of images per class, such as `crops/val` of `ccop-pretrain scenes`.

    Args:
        root: contains one folder of images a class.
        image_size: side in pixels that an image is scaled and cropped to.

    Attributes:
        skipped: images that could not be read; they are left out.

    Raises:
        UserError: fewer than two classes.
    """

    def __init__(self, root: Path, image_size: int) -> None:
        self.source = open_source(root)
        self.image_size = image_size
        names = [key.split("/")[0] if "/" in key else "" for key in self.source.keys]
        classes = sorted(set(names))
        if len(classes) < 2 or "" in classes:
            raise UserError(f"{root} is not a labelled data set: give a folder with one subfolder of images per class")
        self.labels = torch.tensor([classes.index(name) for name in names])
        self.skipped = SkippedImages()

    def hits(self, network: ResNetFPN) -> Tensor:
        """Leave-one-out kNN of average-pooled res5 features by cosine similarity, unit votes.

        Draws nothing; the network's mode and statistics are as before on return.

        Returns:
            (N,) int8 on the CPU for all N images: 1 where the neighbours' class is the image's, 0 where it is not, -1
            where the image could not be read. All are -1, with a warning, where fewer than two images can be read.
        """
        was_training = network.training
        network.eval()
        device = next(network.parameters()).device
        known = len(self.skipped)
        features, places = [], []
        try:
            for start in range(0, len(self.labels), BATCH):
                indices = range(start, min(start + BATCH, len(self.labels)))
                images = {index: image for index in indices if (image := self._image(index)) is not None}
                if images:
                    features.append(self._embed(network, torch.stack(list(images.values())).to(device)))
                    places += list(images)
        finally:
            network.train(was_training)
        if len(self.skipped) > known:
            LOG.warning("probe %s: %s", self.source.root, self.skipped.summary())
        hits = torch.full((len(self.labels),), UNREAD, dtype=torch.int8)
        if len(places) < 2:
            LOG.warning("probe %s: fewer than two images can be read, there is no accuracy", self.source.root)
            return hits
        hits[places] = self._vote(torch.cat(features), self.labels[places]).to(torch.int8)
        return hits

    def _vote(self, features: Tensor, labels: Tensor) -> Tensor:
        similarity = features @ features.T
        similarity.fill_diagonal_(-torch.inf)
        nearest = similarity.topk(min(NEIGHBOURS, len(features) - 1)).indices
        votes = torch.nn.functional.one_hot(labels[nearest.cpu()]).sum(1)
        return votes.argmax(1) == labels

    @torch.no_grad()
    def _embed(self, network: ResNetFPN, images: Tensor) -> Tensor:
        return normalize(network.stages(images)["res5"].float().mean(dim=(2, 3)))

    def _image(self, index: int) -> Tensor | None:
        size = (self.image_size, self.image_size)
        try:
            whole = self.source[index].read()
        except UnreadableImageError as error:
            self.skipped.add(self.source.keys[index], error.reason)
            return None
        image = ImageOps.fit(whole, size, Image.Resampling.BILINEAR)
        pixels = (np.array(image) - np.array(PIXEL_MEAN)) / np.array(PIXEL_STD)
        return torch.from_numpy(pixels).float().permute(2, 0, 1)


def accuracy(hits: Tensor) -> float:
    """Share of the images that could be read that are hits (see `LabelledFolder.hits`); NaN where there are none."""
    return hits[hits != UNREAD].double().mean().item()


@dataclass(frozen=True)
class Change:
    """How a kNN accuracy changed since the start of a run; shares of the images, with their 95 % interval.

    Attributes:
        start: accuracy at the start.
        now: accuracy now.
        low: lower end of the interval of the change.
        high: its upper end.
        images: images that the comparison is over, those read both times.
    """

    start: float
    now: float
    low: float
    high: float
    images: int

    @classmethod
    def between(cls, start: Tensor, now: Tensor) -> Change:
        """Compare the hits of two networks on the same images by a paired bootstrap over the images.

        An image changes by -1, 0 or 1, so a resample of the images is a multinomial draw of how many did. The draws
        have a seed of their own.

        Args:
            start: (N,) hits at the start.
            now: (N,) hits now.
        """
        both = (start != UNREAD) & (now != UNREAD)
        count = int(both.sum())
        if not count:
            return cls(math.nan, math.nan, math.nan, math.nan, 0)
        changes = (now[both] - start[both]).numpy()
        shares = [float((changes == change).mean()) for change in (-1, 1, 0)]
        lost, won, _ = np.random.default_rng(0).multinomial(count, shares, RESAMPLES).T
        low, high = np.percentile((won - lost) / count, (2.5, 97.5))
        return cls(accuracy(start[both]), accuracy(now[both]), float(low), float(high), count)

    @property
    def is_better(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low > 0

    @property
    def figures(self) -> dict[str, float]:
        """What is logged, as shares from -1 to 1."""
        return {"knn_change": self.now - self.start, "knn_change_low": self.low, "knn_change_high": self.high}

    def __str__(self) -> str:
        """`better than at the start by +3.1 points [1.2, 5.0]`, and what that is made from."""
        points = f"{100 * (self.now - self.start):+.1f} points [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        verdict = (
            f"better than at the start by {points}" if self.is_better else f"not better than at the start: {points}"
        )
        return f"{verdict} ({self.start:.1%} then, {self.now:.1%} now; 95 % interval over {self.images} images)"
