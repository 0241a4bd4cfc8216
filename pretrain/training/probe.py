"""kNN probe during training: classifies each image by its nearest neighbours."""

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

from ccop_hub.architectures import BackboneFPN
from ccop_hub.errors import UserError
from ccop_hub.image_sources.skipped import SkippedImages
from ccop_hub.image_sources.source import open_source
from ccop_hub.images import UnreadableImageError
from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD

LOG = logging.getLogger("ccop_pretrain.training.probe")

NEIGHBOURS = 20
"""Number of voting neighbours, or all other images if there are fewer."""

BATCH = 64
"""Batch size for embedding images."""

UNREAD = -1
"""Value for an image that could not be read."""

RESAMPLES = 10_000
"""Number of bootstrap resamples."""


class LabelledFolder:
    """kNN probe on a folder with one subfolder per class, such as `crops/val` of `ccop-pretrain scenes`.

    Args:
        root: folder with one subfolder of images per class.
        image_size: side in pixels to which images are resized and cropped.

    Attributes:
        skipped: unreadable images, which are left out.

    Raises:
        UserError: there are fewer than two classes.
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

    def hits(self, network: BackboneFPN) -> Tensor:
        """Run leave-one-out kNN on average-pooled res5 features, with cosine similarity and unweighted votes.

        Uses no random numbers, and restores the network's mode and statistics.

        Returns:
            (N,) int8 on the CPU for all N images: 1 if the image is classified correctly, 0 if not, -1 if it could not
            be read. If fewer than two images are readable, all are -1 and a warning is logged.
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
    def _embed(self, network: BackboneFPN, images: Tensor) -> Tensor:
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
    """Compute the share of hits among readable images (see `LabelledFolder.hits`); NaN if there are none."""
    return hits[hits != UNREAD].double().mean().item()


@dataclass(frozen=True)
class Change:
    """Change in kNN accuracy since the start of a run, with a 95 % interval; all values are fractions.

    Attributes:
        start: accuracy at the start.
        now: current accuracy.
        low: lower bound of the change.
        high: upper bound of the change.
        images: number of images compared, i.e. those read both times.
    """

    start: float
    now: float
    low: float
    high: float
    images: int

    @classmethod
    def between(cls, start: Tensor, now: Tensor) -> Change:
        """Compare the hits of two networks on the same images, using a paired bootstrap over images.

        Each image changes by -1, 0 or 1, so resampling images is a multinomial draw of the three counts. The bootstrap
        has a fixed seed.

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
        """Whether the entire interval is above 0."""
        return self.low > 0

    @property
    def figures(self) -> dict[str, float]:
        """Return the values to log, as fractions from -1 to 1."""
        return {"knn_change": self.now - self.start, "knn_change_low": self.low, "knn_change_high": self.high}

    def __str__(self) -> str:
        """Format as `better than at the start by +3.1 points [1.2, 5.0]`, followed by the underlying numbers."""
        points = f"{100 * (self.now - self.start):+.1f} points [{100 * self.low:.1f}, {100 * self.high:.1f}]"
        verdict = (
            f"better than at the start by {points}" if self.is_better else f"not better than at the start: {points}"
        )
        return f"{verdict} ({self.start:.1%} then, {self.now:.1%} now; 95 % interval over {self.images} images)"
