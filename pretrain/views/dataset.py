"""Images and their proposals as batches of two views, the same whatever the number of worker processes.

Every draw belongs to (seed, epoch, image index); an unreadable image is replaced by the next readable one of the
listing, so that neither the batch nor any other image's draws change.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

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
from ..images.skipped import SkippedImages, require_readable
from ..images.source import ImageSource, open_source
from ..proposals.store import ProposalStore
from ..settings import OptimisationSettings, ReadingSettings, RunSettings, ViewSettings
from .geometry import TwoViews, draw_views, render_view, two_views

MOST_WORKERS = 8
"""Worker processes taken at most unless the settings name a number."""

CHECKED_IMAGES = 8
"""Images read before a run starts, to find at once that none decodes or that the proposals are of other files."""


@dataclass(frozen=True)
class SceneListing:
    """The images of a run and their proposals.

    Attributes:
        source: the images; an image's index is its place in here.
        proposals: their boxes, or None where the objective looks at no box.
        reading: which images are left out.
    """

    source: ImageSource
    proposals: ProposalStore | None
    reading: ReadingSettings = field(default_factory=ReadingSettings)

    @classmethod
    def open(cls, images: Path, proposals: Path | None, reading: ReadingSettings | None = None) -> SceneListing:
        """List the images (see `image_source`) and open their proposals.

        Raises:
            UserError: no images, no readable one, proposals of other images, or more images left out of the proposals
                than `reading` allows.
        """
        source = open_source(images)
        store = None
        if proposals is not None:
            store = ProposalStore.open(proposals)
            store.require(source.keys)
        listing = cls(source, store, reading or ReadingSettings())
        require_readable(listing.left_out(), len(source), listing.reading.max_unreadable)
        listing._check_some()
        return listing

    @property
    def root(self) -> Path:
        """Folder that the images' keys are relative to."""
        return self.source.root

    @property
    def images(self) -> Sequence[str]:
        """Keys of the images: relative POSIX paths, sorted."""
        return self.source.keys

    @property
    def digest(self) -> str:
        """`sha256:` + digest of the listed keys."""
        return f"sha256:{self.source.digest}"

    def left_out(self) -> SkippedImages:
        """The listed images that have no proposals, for they could not be read then."""
        skipped = SkippedImages()
        for image, reason in ({} if self.proposals is None else self.proposals.skipped).items():
            if self.source.keys.find(image) is not None:
                skipped.add(image, reason)
        return skipped

    def read(self, index: int) -> Image.Image:
        """The image at `index`, RGB, upright.

        Raises:
            UnreadableImageError: it cannot be decoded, or could not be when the proposals were made.
        """
        stored = self.source[index]
        if self.proposals is not None and stored.key in self.proposals.skipped:
            raise UnreadableImageError(self.root / stored.key, self.proposals.skipped[stored.key])
        return stored.read(self.reading.max_pixels)

    def boxes(self, index: int) -> NDArray[np.float32]:
        """Proposals of a readable image: (N, 4) float32 xyxy, pixels; none where there are no proposals at all."""
        if self.proposals is None:
            return np.zeros((0, 4), dtype=np.float32)
        return self.proposals.boxes(self.images[index])

    def _check_some(self) -> None:
        """Read a few images: at least one must decode, and each must have the size its proposals were made at."""
        spread = range(0, len(self.images), max(1, len(self.images) // CHECKED_IMAGES))
        readable = 0
        for place, index in enumerate([*spread, *range(len(self.images))]):
            if readable and place >= len(spread):
                return
            try:
                size = self.read(index).size
            except UnreadableImageError:
                continue
            readable += 1
            if self.proposals is not None and self.proposals.size(self.images[index]) != size:
                raise UserError(
                    f"{self.images[index]} has {size[0]} x {size[1]} pixels, but its proposals in "
                    f"{self.proposals.folder} were made of an image of another size; make proposals of this folder: "
                    f"ccop-pretrain proposals {self.root} --out NEW"
                )
        if not readable:
            raise UserError(f"none of the {len(self.images)} images in {self.root} can be read; give whole images")


@dataclass(frozen=True)
class ViewPair:
    """Two views of one image.

    Attributes:
        query_image: (3, S, S) uint8 RGB.
        key_image: (3, S, S) uint8 RGB.
        query_boxes: (n, 4) float32 xyxy, pixels of the view.
        key_boxes: (n, 4) float32 xyxy; row i is the object of row i of `query_boxes`.
        skipped: (index, reason) of unreadable images that were passed over to make this pair.
    """

    query_image: Tensor
    key_image: Tensor
    query_boxes: Tensor
    key_boxes: Tensor
    skipped: list[tuple[int, str]]


@dataclass
class ViewBatch:
    """A batch of view pairs as the worker processes hand it over, before augmentation.

    Attributes:
        query_images: (B, 3, S, S) uint8 RGB.
        key_images: (B, 3, S, S) uint8 RGB.
        query_boxes: B tensors (n_i, 4) float32 xyxy, pixels of the view.
        key_boxes: B tensors (n_i, 4), row by row the same objects.
        skipped: (index, reason) of unreadable images passed over.
    """

    query_images: Tensor
    key_images: Tensor
    query_boxes: list[Tensor]
    key_boxes: list[Tensor]
    skipped: list[tuple[int, str]]

    @classmethod
    def collate(cls, pairs: Sequence[ViewPair]) -> ViewBatch:
        """Stack pairs in their order."""
        return cls(
            torch.stack([pair.query_image for pair in pairs]),
            torch.stack([pair.key_image for pair in pairs]),
            [pair.query_boxes for pair in pairs],
            [pair.key_boxes for pair in pairs],
            [skipped for pair in pairs for skipped in pair.skipped],
        )

    def pin_memory(self) -> ViewBatch:
        """The same batch with its images in page-locked memory, for a copy to the GPU that does not wait."""
        return replace(self, query_images=self.query_images.pin_memory(), key_images=self.key_images.pin_memory())


class SceneViews(Dataset[ViewPair]):
    """Two views of an image for any (epoch, image index).

    Args:
        listing: the images and their proposals.
        settings: how views are cut.
        seed: seed of the run.
    """

    def __init__(self, listing: SceneListing, settings: ViewSettings, seed: int) -> None:
        self.listing = listing
        self.settings = settings
        self.seed = seed

    def __len__(self) -> int:
        return len(self.listing.images)

    def __getitem__(self, place: tuple[int, int]) -> ViewPair:
        """The pair that `(epoch, index)` stands for: a pure function of it, of the seed and of the files."""
        epoch, index = place
        image, found, skipped = self._read_from(index)
        views = self.views(epoch, index, found, image.size)
        return ViewPair(
            render_view(image, views.query, self.settings.image_size),
            render_view(image, views.key, self.settings.image_size),
            torch.from_numpy(views.query.boxes),
            torch.from_numpy(views.key.boxes),
            skipped,
        )

    def boxes(self, index: int) -> NDArray[np.float32]:
        """The proposals that are used of an image: (N, 4) float32 xyxy, image pixels, N at most `max_boxes`."""
        return self.listing.boxes(index)[: self.settings.max_boxes]

    def views(self, epoch: int, index: int, found: int, size: tuple[int, int]) -> TwoViews:
        """Where the views of `(epoch, index)` lie.

        Args:
            epoch: pass over the images, from 0.
            index: the image that the sampler asked for; the draws belong to it.
            found: the image that is used in its place; the same, unless that one is unreadable.
            size: (width, height) of the used image in pixels.
        """
        draws = draw_views(size, derive_seed("views", self.seed, epoch, index), self.settings)
        return two_views(self.boxes(found), draws, self.settings)

    def _read_from(self, index: int) -> tuple[Image.Image, int, list[tuple[int, str]]]:
        """The image at `index`, or the first readable one behind it; its index; and what was passed over."""
        skipped: list[tuple[int, str]] = []
        for offset in range(len(self)):
            found = (index + offset) % len(self)
            try:
                return self.listing.read(found), found, skipped
            except UnreadableImageError as error:
                skipped.append((found, error.reason))
        raise UserError(f"no image in {self.listing.root} can be read any more; was the folder moved during the run?")


class RunSampler(Sampler[tuple[int, int]]):
    """The (epoch, image index) of every image of a whole run, for one process, in order.

    Each epoch is a permutation drawn from (seed, epoch). Its images are dealt out batch by batch, a batch's share
    process by process; a partial last batch is left out. The position after k steps is a function of k.

    Args:
        images: number of images.
        batch_size: images in a step, over all processes; a multiple of `processes`.
        steps: steps of the whole run.
        seed: seed of the run.
        process: this process's rank.
        processes: number of processes.
        start: steps already done, left out of the next pass over the sampler.
    """

    def __init__(
        self, images: int, batch_size: int, steps: int, seed: int, process: int = 0, processes: int = 1, start: int = 0
    ) -> None:
        self.images = images
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed
        self.process = process
        self.processes = processes
        self.start = start

    def __len__(self) -> int:
        """Images that this process sees in the whole run, those before `start` included."""
        return self.steps * self.batch_size // self.processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        per_epoch = self.images // self.batch_size
        share = self.batch_size // self.processes
        order: list[int] = []
        drawn_epoch = -1
        for step in range(self.start, self.steps):
            epoch, batch = divmod(step, per_epoch)
            if epoch != drawn_epoch:
                generator = torch.Generator().manual_seed(derive_seed("order", self.seed, epoch))
                order = torch.randperm(self.images, generator=generator).tolist()
                drawn_epoch = epoch
            first = batch * self.batch_size + self.process * share
            yield from ((epoch, index) for index in order[first : first + share])


class SceneData(LightningDataModule):
    """The batches of a run, from the step that it has come to.

    Args:
        listing: the images and their proposals.
        settings: of the run.
        steps: steps of the whole run.
    """

    def __init__(self, listing: SceneListing, settings: RunSettings, steps: int) -> None:
        super().__init__()
        self.listing = listing
        self.settings = settings
        self.steps = steps
        self._skipped = listing.left_out()

    def on_before_batch_transfer(self, batch: ViewBatch, dataloader_idx: int) -> ViewBatch:
        """Pass a batch on, unless too many images have turned out to be unreadable by now.

        Raises:
            UserError: more of them than the settings allow.
        """
        known = len(self._skipped)
        for index, reason in batch.skipped:
            self._skipped.add(self.listing.images[index], reason)
        if len(self._skipped) > known:
            require_readable(self._skipped, len(self.listing.images), self.settings.max_unreadable)
        return batch

    def train_dataloader(self) -> DataLoader[ViewPair]:
        """This process's share of every batch; Lightning asks for it after a checkpoint is restored."""
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("SceneData belongs to a Trainer: it deals the images out to the trainer's processes")
        settings, processes = self.settings, trainer.world_size
        sampler = RunSampler(
            len(self.listing.images),
            settings.batch_size,
            self.steps,
            settings.seed,
            trainer.global_rank,
            processes,
            start=trainer.global_step,
        )
        return DataLoader(
            SceneViews(self.listing, settings, settings.seed),
            batch_size=images_per_process(settings, processes),
            sampler=sampler,
            num_workers=default_workers() if settings.workers is None else settings.workers,
            collate_fn=ViewBatch.collate,
            pin_memory=trainer.strategy.root_device.type == "cuda",
            worker_init_fn=_use_one_thread,
        )


def images_per_process(settings: OptimisationSettings, processes: int) -> int:
    """Images of a batch that each process takes.

    Raises:
        UserError: the batch cannot be shared out evenly, or a micro-batch is too small for batch norm.
    """
    parts = settings.micro_batches
    size, rest = divmod(settings.batch_size, processes * parts)
    if rest or size < 2:
        split = "" if parts == 1 else f" with {parts} micro-batches each"
        unit = "process" if parts == 1 else "micro-batch"
        raise UserError(
            f"a batch of {settings.batch_size} cannot be shared out to {processes} processes{split}, two images or "
            f"more a {unit}: give --batch-size a multiple of {processes * parts}, {2 * processes * parts} or more"
        )
    return size * parts


def default_workers() -> int:
    """Reader processes where the settings name no number: one a usable core, at most `MOST_WORKERS`."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_WORKERS)


def _use_one_thread(_: int) -> None:
    torch.set_num_threads(1)
