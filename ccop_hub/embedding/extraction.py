"""Compute one feature vector per image, or per box."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal, TypeVar

import torch
from torch import Tensor

from ..architectures import PYRAMID_STRIDES
from ..box_features import padded, pool_boxes, pyramid_features, stage_features
from ..errors import UserError
from ..frozen_network import FrozenNetwork
from ..readers import Reader
from ..settings import FeatureLevel
from .views import View, Views

T = TypeVar("T")

STAGE_STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
"""Input pixels per cell of each backbone stage."""


def parts_of(level: FeatureLevel) -> tuple[Literal["backbone", "fpn"], ...]:
    """Return the parts of the weights that a feature level needs."""
    return ("backbone", "fpn") if level == "pyramid" or level in PYRAMID_STRIDES else ("backbone",)


def read_views(views: Views, workers: int) -> Iterable[View]:
    """Yield all images in order, read by worker processes; the order does not depend on their number."""
    return Reader(views, batch_size=None, num_workers=workers)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Group items into lists of `size`, the last of which may be shorter."""
    batch: list[T] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def image_extractor(network: FrozenNetwork, level: FeatureLevel) -> Callable[[Sequence[View]], Tensor]:
    """Make a function that computes (N, D) float32 features of N images.

    Images of one size share a forward pass; others are processed one at a time, since padding to a common size would
    change the features near the border.
    """
    device = network.get_buffer("mean").device

    def extract(views: Sequence[View]) -> Tensor:
        if len({view.pixels.shape for view in views}) > 1:
            return torch.cat([extract([view]) for view in views])
        height, width = views[0].pixels.shape[1:]
        images = torch.cat([padded(view.pixels) for view in views]).to(device)
        if level == "stages":
            whole = torch.tensor([[0.0, 0.0, width, height]], device=device)
            return torch.cat([stage_features(network, image[None], whole) for image in images]).float().cpu()
        maps = network.pyramid(images) if level in PYRAMID_STRIDES else network.stages(images)
        features = maps["res5" if level == "pooled" else level]
        stride = PYRAMID_STRIDES.get(level) or STAGE_STRIDES["res5" if level == "pooled" else level]
        # Cells that lie wholly in the padding show nothing of the image.
        shown = features[:, :, : -(-height // stride), : -(-width // stride)]
        return shown.float().mean((2, 3)).cpu()

    return extract


def box_extractor(network: FrozenNetwork, level: FeatureLevel) -> Callable[[View], Tensor]:
    """Make a function that computes (n, D) float32 features of the n boxes of an image, by 7 x 7 RoIAlign."""
    device = network.get_buffer("mean").device

    @torch.no_grad()
    def extract(view: View) -> Tensor:
        image, boxes = padded(view.pixels).to(device), view.scaled.to(device)
        if level == "pyramid":
            return pyramid_features(network, image, boxes).float().cpu()
        if level == "stages":
            return stage_features(network, image, boxes).float().cpu()
        name = "res5" if level == "pooled" else level
        maps = network.pyramid(image) if name in PYRAMID_STRIDES else network.stages(image)
        return pool_boxes(maps[name], boxes, PYRAMID_STRIDES.get(name) or STAGE_STRIDES[name]).cpu()

    return extract


def choose_device(accelerator: str) -> torch.device:
    """Return the device to compute on; `auto` is a GPU if there is one.

    Raises:
        UserError: there is no such device.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if accelerator in ("auto", "gpu"):
        accelerator = next((name for name in ("cuda", "mps") if there[name]), "cpu" if accelerator == "auto" else "gpu")
    if not there.get(accelerator):
        raise UserError(f"--accelerator {accelerator}: this machine has none; use --accelerator cpu")
    return torch.device(accelerator)
