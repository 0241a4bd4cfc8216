"""A training batch: two views of each image."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass
class ViewBatch:
    """Two views of B images, and the boxes that mark the same objects in both.

    Attributes:
        query_images: (B, 3, S, S) RGB: uint8 (0 to 255) from the data loader, normalised float32 after augmentation.
        key_images: the other view of each image, in the same format.
        query_boxes: B tensors (n_i, 4) on the CPU, float32 xyxy in pixels of the query view; n_i may be 0.
        key_boxes: the same objects in the key view, in the same order.
        indices: index of each of the B images in the listing.
        skipped: (index, reason) of each unreadable image that was replaced by another in this batch.
    """

    query_images: Tensor
    key_images: Tensor
    query_boxes: list[Tensor]
    key_boxes: list[Tensor]
    indices: list[int] = field(default_factory=list)
    skipped: list[tuple[int, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.query_images)

    def split(self, parts: int) -> list[ViewBatch]:
        """Split the batch into equal parts, in order.

        Raises:
            ValueError: the number of images is not a multiple of `parts`.
        """
        size, rest = divmod(len(self), parts)
        if rest:
            raise ValueError(f"{len(self)} images cannot be split into {parts} equal parts")
        slices = [slice(start, start + size) for start in range(0, size * parts, size)]
        return [
            ViewBatch(
                self.query_images[part],
                self.key_images[part],
                self.query_boxes[part],
                self.key_boxes[part],
                self.indices[part],
            )
            for part in slices
        ]

    def to(self, device: torch.device) -> ViewBatch:
        """Return the batch with its images on a device; boxes stay on the CPU, where each step is planned."""
        images = (each.to(device, non_blocking=each.is_pinned()) for each in (self.query_images, self.key_images))
        query_images, key_images = images
        return replace(self, query_images=query_images, key_images=key_images)

    def pin_memory(self) -> ViewBatch:
        """Return the batch with its images in page-locked memory, for asynchronous copies to a GPU."""
        return replace(self, query_images=self.query_images.pin_memory(), key_images=self.key_images.pin_memory())
