"""Plans a forward pass on the host: which boxes to pool where, and which of them to compare.

Boxes, jitters and their validity need no image, so the host knows them, and with them every shape of the forward pass,
before it starts. The device receives the plan as tensors of known shapes and never reports back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..common.distributed import BatchShuffle
from ..common.transfer import to_device
from .curriculum import BoxNoise
from .jitter import draw_jitters, key_candidates
from .losses import ImagePairs, candidates_per_image, image_pairs
from .pooling import RoIGeometry, RoISamples, level_sizes, roi_geometry, roi_samples


@dataclass(frozen=True)
class BoxPlan:
    """Boxes of a forward pass, on the device.

    Attributes:
        counts: number of boxes in each image.
        queries: where to pool the query boxes.
        candidates: where to pool the candidates that this process embeds (see `BatchShuffle`).
        candidate_counts: number of candidates in each image that this process embeds.
        valid: (N, J + 1) bool, valid candidates of this process's own boxes; all but these are not embedded.
        valid_on_host: the same, on the CPU.
        pairs: pairs of boxes to compare within an image; None without the intra-image loss.
    """

    counts: list[int]
    queries: RoISamples
    candidates: RoISamples
    candidate_counts: list[int]
    valid: Tensor
    valid_on_host: Tensor
    pairs: ImagePairs | None


@dataclass(frozen=True)
class HostBoxPlan:
    """A `BoxPlan` before it is copied to the device; attributes as there."""

    counts: list[int]
    queries: RoIGeometry
    candidates: RoIGeometry
    candidate_counts: list[int]
    valid: Tensor
    pairs: ImagePairs | None

    def to(self, device: torch.device, dtype: torch.dtype) -> BoxPlan:
        """Copy to the device, without waiting for it; sampling weights get `dtype`, float32 or float64."""
        return BoxPlan(
            self.counts,
            roi_samples(self.queries, device, dtype),
            roi_samples(self.candidates, device, dtype),
            self.candidate_counts,
            to_device(self.valid, device),
            self.valid,
            None if self.pairs is None else self.pairs.to(device),
        )


@dataclass(frozen=True)
class HostPlan:
    """What a forward pass needs to know in advance, on the CPU.

    Attributes:
        shuffle: exchange of key images between processes or groups.
        boxes: the boxes; None without a loss that uses them.
    """

    shuffle: BatchShuffle
    boxes: HostBoxPlan | None

    def to(self, device: torch.device, dtype: torch.dtype) -> DevicePlan:
        """Copy to the device, without waiting for it; sampling weights get `dtype`, float32 or float64."""
        return DevicePlan(self.shuffle, None if self.boxes is None else self.boxes.to(device, dtype))


@dataclass(frozen=True)
class DevicePlan:
    """A `HostPlan` on the device; attributes as there."""

    shuffle: BatchShuffle
    boxes: BoxPlan | None


def plan_boxes(
    query_boxes: Sequence[Tensor],
    key_boxes: Sequence[Tensor],
    shuffle: BatchShuffle,
    *,
    jitters: int,
    noise: BoxNoise,
    view_size: tuple[int, int],
    image_size: int,
    intra_iou: float | None,
) -> HostBoxPlan:
    """Draw the jitters of a batch and plan how its boxes are pooled and compared.

    Args:
        query_boxes: one (n_i, 4) float32 xyxy tensor per image, on the CPU.
        key_boxes: the same objects in the key view.
        shuffle: exchanges boxes between processes.
        jitters: jittered copies of each key box.
        noise: noise of this step.
        view_size: (height, width) of the views in pixels.
        image_size: side of the views that the encoder was built for, in pixels.
        intra_iou: boxes of an image with a lower IoU are compared by the intra-image loss; None without that loss.

    Raises:
        ValueError: an image has more boxes in one view than in the other.
    """
    counts = [len(boxes) for boxes in key_boxes]
    if counts != [len(boxes) for boxes in query_boxes]:
        raise ValueError("query and key boxes of an image differ in number")
    candidates = key_candidates(torch.cat(list(key_boxes)), draw_jitters(counts, jitters), noise, view_size)
    # Only valid jitters can be chosen, so do not embed the others.
    boxes, candidate_counts = shuffle.exchange_boxes(
        candidates.boxes[candidates.valid], candidates_per_image(candidates.valid, counts)
    )
    sizes = level_sizes(*view_size)
    return HostBoxPlan(
        counts,
        roi_geometry(torch.cat(list(query_boxes)), counts, sizes, image_size),
        roi_geometry(boxes, candidate_counts, sizes, image_size),
        candidate_counts,
        candidates.valid,
        None if intra_iou is None else image_pairs(key_boxes, intra_iou),
    )
