"""A kNN probe during training: are the nearest neighbours of an image of its class?"""

from __future__ import annotations

import logging
import math
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


class LabelledFolder:
    """A kNN probe on one folder of images per class, such as `crops/val` of `ccop-pretrain scenes`.

    Args:
        root: holds one folder of images a class.
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
            raise UserError(f"{root} is no labelled folder: give one that holds a folder of images for each class")
        self.labels = torch.tensor([classes.index(name) for name in names])
        self.skipped = SkippedImages()

    def accuracy(self, network: ResNetFPN) -> float:
        """Leave-one-out kNN accuracy (0 to 1) of average-pooled res5 features by cosine similarity, unit votes.

        It is NaN, with a warning, where fewer than two images can be read. Draws nothing; the network's mode and
        statistics are as before on return.
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
        if len(places) < 2:
            LOG.warning("probe %s: fewer than two images can be read, there is no accuracy", self.source.root)
            return math.nan
        return self._vote(torch.cat(features), self.labels[places])

    def _vote(self, features: Tensor, labels: Tensor) -> float:
        similarity = features @ features.T
        similarity.fill_diagonal_(-torch.inf)
        nearest = similarity.topk(min(NEIGHBOURS, len(features) - 1)).indices
        votes = torch.nn.functional.one_hot(labels[nearest.cpu()]).sum(1)
        return (votes.argmax(1) == labels).double().mean().item()

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
