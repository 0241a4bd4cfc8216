"""RoIAlign of boxes from all levels of a feature pyramid in one call, without waiting for a GPU.

RoIAlign averages bilinear samples, so each output bin is a weighted sum of a few neighbouring cells. The host computes
from the boxes which cells those are, and how many; the device computes the weights and adds up the cells of every bin,
of every box, on every level, in one `embedding_bag`. Its inputs' shapes are known on the host, so nothing waits for the
device, and it reads the pyramid in its own dtype, where torchvision's `roi_align` casts all of it to float32 under
autocast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag

from ccop_hub.architectures import PYRAMID_STRIDES

from ..common.transfer import to_device
from .boxes import box_areas, full_precision

LEVEL_LIMITS = {"p2": 48.0, "p3": 96.0, "p4": 192.0}
"""Largest sqrt(area) pooled from each level, in pixels of a 224 px image; larger boxes are pooled from p5.

The authors' code pools boxes over 224 px from p2, but no box in a 224 px image is that large.
"""

LEVELS = (*LEVEL_LIMITS, "p5")
"""Pyramid levels that boxes are pooled from, finest first."""

REFERENCE_IMAGE_SIZE = 224
"""Image side in pixels at which `LEVEL_LIMITS` applies (the paper's crop size)."""

POOLED_SIDE = 7
"""RoIAlign output size (the authors use aligned RoIAlign with an adaptive sampling ratio, 0)."""

BINS = POOLED_SIDE**2
"""Output bins of a box."""


@dataclass(frozen=True)
class RoIGeometry:
    """Sampling points and cells of N boxes, along x and y, as computed on the host.

    A bin is sampled at `count` points per axis, as many as it is cells long (rounded up); they touch `span` cells from
    `first` on. All positions along an axis are relative to `first`.

    Attributes:
        start: (N, 2, 7) float64, position of each bin's first sample.
        step: (N, 2) float64, distance between samples.
        count: (N, 2) long, samples per bin; 0 for an empty box.
        first: (N, 2, 7) long, first cell that a bin touches.
        span: (N, 2, 7) long, number of cells that it touches.
        size: (N, 2) long, width and height of the box's level in cells.
        origin: (N,) long, row of the first cell of its image on its level in `cell_table`.
        entries: number of (bin, cell) pairs over all boxes.
        most_samples: largest `count`.
        widest: largest `span`.
    """

    start: Tensor
    step: Tensor
    count: Tensor
    first: Tensor
    span: Tensor
    size: Tensor
    origin: Tensor
    entries: int
    most_samples: int
    widest: int

    def __len__(self) -> int:
        return len(self.origin)


@dataclass(frozen=True)
class RoISamples:
    """Cells and weights of every bin of N boxes, on the device.

    Attributes:
        cells: (entries,) int32, rows of `cell_table`.
        offsets: (49 N,) int32, start of each bin in `cells`, box by box, row by row.
        weights: (entries,) float32 or float64.
    """

    cells: Tensor
    offsets: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.offsets) // BINS


def level_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Return the (height, width) in cells of `LEVELS` for images of `height` x `width` pixels."""
    return [(-(-height // stride), -(-width // stride)) for stride in (PYRAMID_STRIDES[name] for name in LEVELS)]


def box_levels(boxes: Tensor, image_size: int) -> Tensor:
    """Assign each box to a pyramid level by its size (0 for p2 .. 3 for p5).

    Args:
        boxes: (N, 4) float32 xyxy pixels.
        image_size: side of the images in pixels.

    Returns:
        (N,) long.
    """
    limits = boxes.new_tensor(list(LEVEL_LIMITS.values())) * (image_size / REFERENCE_IMAGE_SIZE)
    return torch.bucketize(box_areas(boxes).sqrt(), limits)


def roi_geometry(
    boxes: Tensor, counts: Sequence[int], sizes: Sequence[tuple[int, int]], image_size: int
) -> RoIGeometry:
    """Compute on the host where boxes are sampled: aligned RoIAlign with adaptive sampling, as in torchvision.

    Args:
        boxes: (N, 4) float32 xyxy pixels on the CPU, image by image.
        counts: number of boxes of each image, N in total.
        sizes: (height, width) in cells of each of `LEVELS`.
        image_size: side of the images in pixels, for `box_levels`.
    """
    level = box_levels(boxes.float(), image_size)
    image = torch.repeat_interleave(torch.tensor(list(counts), dtype=torch.long), output_size=len(boxes))
    strides = torch.tensor([PYRAMID_STRIDES[name] for name in LEVELS], dtype=torch.float64)
    extents = torch.tensor([[width, height] for height, width in sizes])
    cells = extents.prod(1)
    origins = len(counts) * (cells.cumsum(0) - cells)
    size = extents[level]

    corners = boxes.double() / strides[level].unsqueeze(1) - 0.5
    begin, length = corners[:, :2], corners[:, 2:] - corners[:, :2]
    bins = length / POOLED_SIDE
    count = bins.ceil().long().clamp_min(0)
    step = bins / count.clamp_min(1)
    start = (begin + step / 2).unsqueeze(2) + torch.arange(POOLED_SIDE) * bins.unsqueeze(2)
    end = start + (step * (count - 1)).unsqueeze(2)
    border = (size - 1).double().unsqueeze(2)
    first = start.clamp_min(0).minimum(border).floor()
    last = (end.clamp_min(0).minimum(border).floor() + 1).minimum(border)
    span = (last - first + 1).long() * (count > 0).unsqueeze(2)
    return RoIGeometry(
        start=start - first,
        step=step,
        count=count,
        first=first.long(),
        span=span,
        size=size,
        origin=origins[level] + image * cells[level],
        entries=int((span[:, 0].sum(1) * span[:, 1].sum(1)).sum()),
        most_samples=int(count.max()) if len(boxes) else 0,
        widest=int(span.max()) if len(boxes) else 0,
    )


def roi_samples(geometry: RoIGeometry, device: torch.device, dtype: torch.dtype) -> RoISamples:
    """Compute cells and weights on the device from the host's geometry, without waiting for it.

    Args:
        geometry: geometry on the CPU.
        device: device of the pyramid.
        dtype: dtype of the weights, float32 or float64.
    """
    widest = geometry.widest
    start, step, count, first, span, size, origin = (
        to_device(values, device)
        for values in (
            geometry.start.to(dtype),
            geometry.step.to(dtype),
            geometry.count.to(dtype),
            geometry.first.to(torch.int32),
            geometry.span.to(torch.int32),
            geometry.size.to(torch.int32),
            geometry.origin.to(torch.int32),
        )
    )
    weights = _axis_weights(start, step, count, size.unsqueeze(2) - first, first, geometry.most_samples, widest)

    # A bin touches the product of the cells that it touches along x and along y.
    span_x, span_y = span.unbind(1)
    bags = (span_y.unsqueeze(2) * span_x.unsqueeze(1)).flatten()
    offsets = (bags.cumsum(0) - bags).int()
    corner = (origin.view(-1, 1, 1) + first[:, 1].unsqueeze(2) * size[:, :1].unsqueeze(2) + first[:, :1]).flatten()
    boxes = torch.arange(len(geometry), dtype=torch.int32, device=device).view(-1, 1, 1)
    bins = torch.arange(POOLED_SIDE, dtype=torch.int32, device=device)
    rows_x, rows_y = (2 * boxes) * POOLED_SIDE + bins, (2 * boxes + 1) * POOLED_SIDE + bins.unsqueeze(1)

    bag = torch.repeat_interleave(bags, output_size=geometry.entries)
    shape = (len(geometry), POOLED_SIDE, POOLED_SIDE)
    width = span_x.unsqueeze(1).expand(shape).flatten()[bag]
    place = torch.arange(geometry.entries, dtype=torch.int32, device=device) - offsets[bag]
    row = torch.div(place, width, rounding_mode="floor")
    column = place - row * width
    cells = corner[bag] + row * size[:, 0].view(-1, 1, 1).expand(shape).flatten()[bag] + column
    along_y = weights[rows_y.expand(shape).flatten()[bag] * widest + row]
    along_x = weights[rows_x.expand(shape).flatten()[bag] * widest + column]
    return RoISamples(cells, offsets, along_y * along_x)


def _axis_weights(
    start: Tensor, step: Tensor, count: Tensor, after: Tensor, first: Tensor, most_samples: int, widest: int
) -> Tensor:
    """Weights of the cells of every bin along one axis, (N * 2 * 7 * widest,) flattened.

    A sample gives weight 1 - d to a cell at distance d < 1; beyond the outermost cells, all weight goes to these.
    Samples more than one cell outside count as 0 (torchvision's `roi_align`). `after` is the number of cells from the
    first on.
    """
    weights = start.new_zeros(*start.shape, widest)
    cells = torch.arange(widest, dtype=start.dtype, device=start.device)
    for sample in range(most_samples):
        position = start + (step * sample).unsqueeze(2)
        counted = (count > sample).unsqueeze(2) & (position >= -1 - first) & (position <= after)
        inside = position.maximum(-first.to(start.dtype)).minimum(after.to(start.dtype) - 1)
        weights += (1 - (inside.unsqueeze(3) - cells).abs()).clamp_min(0) * counted.unsqueeze(3)
    return (weights / count.clamp_min(1).view(-1, 2, 1, 1)).flatten()


def cell_table(pyramid: Mapping[str, Tensor]) -> Tensor:
    """Return all cells of all images as rows of one table, level by level and image by image: (sum of B H W, C).

    In the channels-last layout this is one copy, and its gradient has that layout too. Image by image, it would have
    gaps between the images, for which torch's batch norm takes several times as long on a CPU.
    """
    levels = [pyramid[name] for name in LEVELS]
    return torch.cat([level.permute(0, 2, 3, 1).reshape(-1, level.shape[1]) for level in levels])


def pool_samples(pyramid: Mapping[str, Tensor], samples: RoISamples) -> Tensor:
    """Add up the sampled cells of every bin.

    Levels without boxes still take part, so that every pyramid parameter gets a gradient.

    Args:
        pyramid: `{"p2": (B, C, H/4, W/4), ..., "p5": ...}`; other levels are ignored.
        samples: cells and weights of N boxes.

    Returns:
        (N, C, 7, 7), in the pyramid's dtype; on a CPU, in float32 or float64.
    """
    cells = cell_table(pyramid)
    channels = cells.shape[1]
    if cells.device.type == "cpu":
        # Unlike the GPU's `embedding_bag`, the CPU's adds up bfloat16 in bfloat16.
        cells = full_precision(cells)
    if not len(samples):
        return cells[:0].view(0, channels, 1, 1).expand(0, channels, POOLED_SIDE, POOLED_SIDE)
    weights = samples.weights.to(cells.dtype)
    pooled = embedding_bag(samples.cells, cells, samples.offsets, mode="sum", per_sample_weights=weights)
    return pooled.view(-1, POOLED_SIDE, POOLED_SIDE, channels).permute(0, 3, 1, 2)


def sample_boxes(pyramid: Mapping[str, Tensor], boxes: Sequence[Tensor], image_size: int) -> RoISamples:
    """Compute cells and weights of boxes for a pyramid.

    Args:
        pyramid: `{"p2": (B, C, H/4, W/4), ..., "p5": ...}`; other levels are ignored.
        boxes: one (n_i, 4) float32 xyxy tensor for each of the B images, in pixels, on the CPU.
        image_size: side of the images in pixels.
    """
    finest = pyramid["p2"]
    sizes = [(pyramid[name].shape[2], pyramid[name].shape[3]) for name in LEVELS]
    geometry = roi_geometry(torch.cat(list(boxes)), [len(part) for part in boxes], sizes, image_size)
    return roi_samples(geometry, finest.device, torch.float64 if finest.dtype == torch.float64 else torch.float32)


def pool_boxes(pyramid: Mapping[str, Tensor], boxes: Sequence[Tensor], image_size: int) -> Tensor:
    """RoIAlign each box from the pyramid level that fits its size: `sample_boxes`, then `pool_samples`.

    Returns:
        (sum of n_i, C, 7, 7), image by image.
    """
    return pool_samples(pyramid, sample_boxes(pyramid, boxes, image_size))
