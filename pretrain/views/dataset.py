"""Images and their proposals as batches of two views, the same whatever the number of worker processes.

Every draw belongs to (seed, epoch, image index). An unreadable image is replaced by the next readable one in the
listing, so that neither the size of the batch nor any other image's draws change.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ccop_hub.errors import UserError
from ccop_hub.images import UnreadableImageError

from ..common.seeding import derive_seed
from ..common.signals import ignore_stop_signals
from ..images.skipped import require_readable
from ..method.batch import ViewBatch
from ..settings import RunSettings, ViewSettings
from .geometry import TwoViews, draw_views, render_view, two_views
from .listing import ImageListing

MOST_WORKERS = 8
"""Reader processes used at most, unless the settings give a number."""


@dataclass(frozen=True)
class ViewPair:
    """Two views of one image.

    Attributes:
        query_image: (3, S, S) uint8 RGB.
        key_image: (3, S, S) uint8 RGB.
        query_boxes: (n, 4) float32 xyxy, pixels of the view.
        key_boxes: (n, 4) float32 xyxy; row i is the object of row i of `query_boxes`.
        index: place of the image in the listing.
        skipped: (index, reason) of unreadable images that this one stands in for.
    """

    query_image: Tensor
    key_image: Tensor
    query_boxes: Tensor
    key_boxes: Tensor
    index: int
    skipped: list[tuple[int, str]]


def collate(pairs: Sequence[ViewPair]) -> ViewBatch:
    """Stack view pairs into a batch, in their order."""
    return ViewBatch(
        torch.stack([pair.query_image for pair in pairs]),
        torch.stack([pair.key_image for pair in pairs]),
        [pair.query_boxes for pair in pairs],
        [pair.key_boxes for pair in pairs],
        [pair.index for pair in pairs],
        [skipped for pair in pairs for skipped in pair.skipped],
    )


class ViewDataset(Dataset[ViewPair]):
    """Two views of an image for any (epoch, image index).

    Args:
        listing: the images and their proposals.
        settings: how views are cut.
        seed: seed of the run.
    """

    def __init__(self, listing: ImageListing, settings: ViewSettings, seed: int) -> None:
        self.listing = listing
        self.settings = settings
        self.seed = seed

    def __len__(self) -> int:
        return len(self.listing)

    def __getitem__(self, place: tuple[int, int]) -> ViewPair:
        """The view pair of `(epoch, index)`: it depends on these, the seed and the files alone."""
        epoch, index = place
        found, image, skipped = self._read_from(index)
        views = self.views(epoch, index, found, image.size)
        return ViewPair(
            render_view(image, views.query, self.settings.image_size),
            render_view(image, views.key, self.settings.image_size),
            torch.from_numpy(views.query.boxes),
            torch.from_numpy(views.key.boxes),
            found,
            skipped,
        )

    def boxes(self, index: int) -> NDArray[np.float32]:
        """The proposals used of an image: (N, 4) float32 xyxy in pixels of the image, N at most `max_boxes`."""
        return self.listing.boxes(index)[: self.settings.max_boxes]

    def views(self, epoch: int, index: int, found: int, size: tuple[int, int]) -> TwoViews:
        """The geometry of the views of `(epoch, index)`.

        Args:
            epoch: pass over the images, from 0.
            index: the image that the sampler asked for; the draws belong to it.
            found: the image that is used; the same, unless that one is unreadable.
            size: (width, height) in pixels of the image that is used.
        """
        draws = draw_views(size, derive_seed("views", self.seed, epoch, index), self.settings)
        return two_views(self.boxes(found), draws, self.settings)

    def _read_from(self, index: int) -> tuple[int, Image.Image, list[tuple[int, str]]]:
        """Index and image of the first readable image from `index` on, and the unreadable ones before it."""
        skipped: list[tuple[int, str]] = []
        for offset in range(len(self)):
            found = (index + offset) % len(self)
            try:
                return found, self.listing.read(found), skipped
            except UnreadableImageError as error:
                skipped.append((found, error.reason))
        raise UserError(f"no image in {self.listing.root} can be read any more; restore the folder")


class RunSampler(Sampler[tuple[int, int]]):
    """The (epoch, image index) of every image of a whole run, for one process, in order.

    Each epoch is a permutation drawn from (seed, epoch), cut into batches, and each batch into equal shares, one for
    each process; a partial last batch is left out. The position after k steps depends on k alone.

    Args:
        image_count: number of images in the listing.
        batch_size: images in a step, over all processes; a multiple of `processes`.
        steps: steps of the whole run.
        seed: seed of the run.
        process: this process's rank.
        processes: number of processes.
        start: steps already done, which are not sampled again.
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
        """Images that this process sees in the whole run, including those before `start`."""
        return self.steps * self.batch_size // self.processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        per_epoch = self.image_count // self.batch_size
        share = self.batch_size // self.processes
        order: list[int] = []
        drawn_epoch = -1
        for step in range(self.start, self.steps):
            epoch, batch = divmod(step, per_epoch)
            if epoch != drawn_epoch:
                generator = torch.Generator().manual_seed(derive_seed("order", self.seed, epoch))
                order = torch.randperm(self.image_count, generator=generator).tolist()
                drawn_epoch = epoch
            first = batch * self.batch_size + self.process * share
            yield from ((epoch, index) for index in order[first : first + share])


class PretrainingData(LightningDataModule):
    """The batches of a run, from the step that it has reached.

    Args:
        listing: the images and their proposals.
        settings: of the run.
        steps: steps of the whole run.
    """

    def __init__(self, listing: ImageListing, settings: RunSettings, steps: int) -> None:
        super().__init__()
        self.listing = listing
        self.settings = settings
        self.steps = steps
        self._skipped = listing.left_out()

    def on_before_batch_transfer(self, batch: ViewBatch, dataloader_idx: int) -> ViewBatch:
        """Count the unreadable images of a batch.

        Raises:
            UserError: there are more of them by now than the settings allow.
        """
        known = len(self._skipped)
        for index, reason in batch.skipped:
            self._skipped.add(self.listing.paths[index], reason)
        if len(self._skipped) > known:
            require_readable(self._skipped, len(self.listing), self.settings.max_unreadable)
        return batch

    def train_dataloader(self) -> DataLoader[ViewPair]:
        """This process's share of every batch; Lightning calls this after a checkpoint is restored."""
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
        return DataLoader(
            ViewDataset(self.listing, settings, settings.seed),
            batch_size=images_per_process(settings, processes),
            sampler=sampler,
            num_workers=default_workers() if settings.workers is None else settings.workers,
            collate_fn=collate,
            pin_memory=trainer.strategy.root_device.type == "cuda",
            worker_init_fn=_start_reader,
        )


def images_per_process(settings: RunSettings, processes: int) -> int:
    """Images of a batch that each process takes.

    Raises:
        UserError: the batch cannot be divided evenly, or what batch norm sees at a time is too small for it.
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
    """Reader processes where the settings give no number: one per usable core, at most `MOST_WORKERS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def _start_reader(_: int) -> None:
    torch.set_num_threads(1)
    # A reader leaves when the training process closes its queue, or when that process is gone.
    ignore_stop_signals()
