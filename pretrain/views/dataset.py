"""Load images and their proposals as batches of two views, independently of the number of workers.

All randomness is seeded by (seed, epoch, image index). An unreadable image is replaced by the next readable one in the
listing, which changes neither the batch size nor the draws for other images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ccop_hub.cores import available_cores
from ccop_hub.errors import UserError
from ccop_hub.image_sources.skipped import require_readable
from ccop_hub.images import Pixels, UnreadableImageError
from ccop_hub.readers import Reader

from ..common.seeding import derive_seed
from ..method.batch import ViewBatch
from ..settings import RunSettings, ViewSettings
from .draws import draw_views
from .geometry import TwoViews, most_reduction, render_view, two_views
from .listing import ImageListing

MOST_WORKERS = 8
"""Default upper limit on the number of data loader workers."""


@dataclass(frozen=True)
class ViewPair:
    """Two views of one image.

    Attributes:
        query_image: (3, S, S) uint8 RGB.
        key_image: (3, S, S) uint8 RGB.
        query_boxes: (n, 4) float32 xyxy, in pixels of the query view.
        key_boxes: (n, 4) float32 xyxy, in pixels of the key view, for the same objects in the same order.
        index: index of the image in the listing.
        skipped: (index, reason) of each unreadable image that this one replaces.
    """

    query_image: Tensor
    key_image: Tensor
    query_boxes: Tensor
    key_boxes: Tensor
    index: int
    skipped: list[tuple[int, str]]


def collate(pairs: Sequence[ViewPair]) -> ViewBatch:
    """Collate view pairs into a batch."""
    return ViewBatch(
        torch.stack([pair.query_image for pair in pairs]),
        torch.stack([pair.key_image for pair in pairs]),
        [pair.query_boxes for pair in pairs],
        [pair.key_boxes for pair in pairs],
        [pair.index for pair in pairs],
        [skipped for pair in pairs for skipped in pair.skipped],
    )


class ViewDataset(Dataset[ViewPair]):
    """Map-style dataset whose keys are (epoch, image index) and whose items are view pairs.

    Args:
        listing: the images and their proposals.
        settings: cropping and augmentation settings.
        seed: seed of the run.
    """

    def __init__(self, listing: ImageListing, settings: ViewSettings, seed: int) -> None:
        self.listing = listing
        self.settings = settings
        self.seed = seed

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, place: tuple[int, int]) -> ViewPair:
        """Return the view pair for `(epoch, index)`, which depends only on these, the seed and the files."""
        epoch, index = place
        size = self.settings.image_size
        found, views, pixels, reduction, skipped = self._read_from(epoch, index)
        return ViewPair(
            render_view(pixels, views.query, size, reduction),
            render_view(pixels, views.key, size, reduction),
            torch.from_numpy(views.query.boxes),
            torch.from_numpy(views.key.boxes),
            found,
            skipped,
        )

    def boxes(self, index: int) -> NDArray[np.float32]:
        """Return at most `max_boxes` proposals of an image, (N, 4) float32 xyxy in image pixels."""
        return self.listing.boxes(index)[: self.settings.max_boxes]

    def views(self, epoch: int, index: int, found: int, size: tuple[int, int]) -> TwoViews:
        """Compute the geometry of the views for `(epoch, index)`.

        Args:
            epoch: epoch, counted from 0.
            index: index requested by the sampler, which seeds the draws.
            found: index of the image that was read; differs from `index` only if that image is unreadable.
            size: (width, height) in pixels of the image that was read.
        """
        draws = draw_views(size, derive_seed("views", self.seed, epoch, index), self.settings)
        return two_views(self.boxes(found), draws, self.settings)

    def _read_from(self, epoch: int, index: int) -> tuple[int, TwoViews, Pixels, int, list[tuple[int, str]]]:
        """Read the first readable image from `index` on, no larger than its views need.

        Returns:
            Its index, views, pixels and the factor by which they are reduced, and the images skipped.
        """
        skipped: list[tuple[int, str]] = []
        for offset in range(len(self)):
            found = (index + offset) % len(self)
            planned: list[TwoViews] = []

            def reduction(size: tuple[int, int], found: int = found, planned: list[TwoViews] = planned) -> int:
                planned.append(self.views(epoch, index, found, size))
                return most_reduction(planned[-1], self.settings.image_size)

            try:
                pixels, reduced = self.listing.read_pixels(found, reduction)
                return found, planned[-1], pixels, reduced, skipped
            except UnreadableImageError as error:
                skipped.append((found, error.reason))
        raise UserError(f"no image in {self.listing.root} can be read any more; restore the folder")


class RunSampler(Sampler[tuple[int, int]]):
    """Yields the (epoch, image index) of every image in a run, in order, for one process.

    Each epoch is a permutation seeded by (seed, epoch) and cut into batches, which are split equally between processes;
    a partial last batch is dropped. The position after k steps depends only on k.

    Args:
        image_count: number of images in the listing.
        batch_size: images per step over all processes; a multiple of `processes`.
        steps: total steps of the run.
        seed: seed of the run.
        process: rank of this process.
        processes: number of processes.
        start: number of completed steps to skip.
    """

    def __init__(
        self,
        image_count: int,
        batch_size: int,
        steps: int,
        seed: int,
        process: int = 0,
        processes: int = 1,
        start: int = 0,
    ) -> None:
        self.image_count = image_count
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.process = process
        self.processes = processes
        self.start = start

    def __len__(self) -> int:
        """Number of images that this process sees over the full run, including those before `start`."""
        return self.steps * self.batch_size // self.processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        per_epoch = self.image_count // self.batch_size
        share = self.batch_size // self.processes
        order = torch.empty(0, dtype=torch.int64)
        drawn_epoch = -1
        for step in range(self.start, self.steps):
            epoch, batch = divmod(step, per_epoch)
            if epoch != drawn_epoch:
                generator = torch.Generator().manual_seed(derive_seed("order", self.seed, epoch))
                order = torch.randperm(self.image_count, generator=generator)
                drawn_epoch = epoch
            first = batch * self.batch_size + self.process * share
            yield from ((epoch, index) for index in order[first : first + share].tolist())


class PretrainingData(LightningDataModule):
    """Data module that yields the batches of a run, starting at the step that the run has reached.

    Args:
        listing: the images and their proposals.
        settings: settings of the run.
        steps: total steps of the run.
    """

    def __init__(self, listing: ImageListing, settings: RunSettings, steps: int) -> None:
        super().__init__()
        self.listing = listing
        self.settings = settings
        self.steps = steps
        self._skipped = listing.left_out()

    def on_before_batch_transfer(self, batch: ViewBatch, dataloader_idx: int) -> ViewBatch:
        """Count the unreadable images in a batch.

        Raises:
            UserError: the total exceeds what the settings allow.
        """
        known = len(self._skipped)
        for index, reason in batch.skipped:
            self._skipped.add(self.listing.paths[index], reason)
        if len(self._skipped) > known:
            require_readable(self._skipped, len(self.listing), self.settings.max_unreadable)
        return batch

    def train_dataloader(self) -> DataLoader[ViewPair]:
        """Return the loader for this process's share of every batch; called after a checkpoint is restored."""
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError(
                "PretrainingData needs a Trainer: it shares the images out between the trainer's processes"
            )
        settings, processes = self.settings, trainer.world_size
        sampler = RunSampler(
            len(self.listing),
            settings.batch_size,
            self.steps,
            settings.seed,
            trainer.global_rank,
            processes,
            start=trainer.global_step,
        )
        return Reader(
            ViewDataset(self.listing, settings, settings.seed),
            batch_size=images_per_process(settings, processes),
            sampler=sampler,
            num_workers=default_workers() if settings.workers is None else settings.workers,
            collate_fn=collate,
            pin_memory=trainer.strategy.root_device.type == "cuda",
        )


def images_per_process(settings: RunSettings, processes: int) -> int:
    """Return the per-process batch size.

    Raises:
        UserError: the batch cannot be split evenly, or is too small for batch norm once split.
    """
    parts = settings.micro_batches * settings.split_bn
    size, rest = divmod(settings.batch_size, processes * parts)
    if rest or size < 2:
        counts = []
        if settings.micro_batches > 1:
            counts.append(f"{settings.micro_batches} micro-batches each")
        if settings.split_bn > 1:
            counts.append(f"--split-bn {settings.split_bn} groups each")
        split = f" with {' of '.join(counts)}" if counts else ""
        unit = "process" if parts == 1 else "micro-batch" if settings.split_bn == 1 else "group"
        raise UserError(
            f"--batch-size {settings.batch_size} cannot be divided between {processes} processes{split}, at least two "
            f"images per {unit}: give a multiple of {processes * parts}, at least {2 * processes * parts}"
        )
    return size * parts


def default_workers() -> int:
    """Return the default number of data loader workers: one per usable core, at most `MOST_WORKERS`."""
    return min(available_cores(), MOST_WORKERS)
