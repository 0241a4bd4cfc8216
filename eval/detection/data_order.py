"""Resumable training data: order and augmentation depend only on the seed, and loading can start at any batch.

Detectron2 draws augmentations from its workers' random state and does not track its position in the data, so a resumed
run would see different images. Here every sample has a number, which determines its image and its augmentation in any
process.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import DatasetFromList
from detectron2.data.samplers import TrainingSampler
from detectron2.utils import comm
from torch.utils.data import Dataset

from ccop_hub.readers import Reader

Record = dict[str, Any]
"""One image with its annotations, in Detectron2's dataset dict format."""


class NumberedSamples(Dataset[Record]):
    """Samples indexed by (number, record index); a sample's number seeds its augmentation.

    Args:
        records: the training images.
        mapper: a `detectron2.data.DatasetMapper`, which reads and augments an image.
        seed: the run's seed.
    """

    def __init__(self, records: Sequence[Record], mapper: Callable[[Record], Record], seed: int) -> None:
        # Serialised into one block of memory, which worker processes share instead of copying.
        self._records = DatasetFromList(list(records), copy=False)
        self._mapper = mapper
        self._seed = seed

    def __getitem__(self, sample: tuple[int, int]) -> Record:
        """Return the augmented sample; NumPy's global random state is restored."""
        number, index = sample
        before = np.random.get_state()
        np.random.seed(np.random.SeedSequence((self._seed, number)).generate_state(8))
        try:
            return self._mapper(self._records[index])
        finally:
            np.random.set_state(before)


class GroupedBatches:
    """One process's infinite stream of batches of (number, index), each with only wide or only tall images.

    Yields the same batches as Detectron2's aspect-ratio grouping over its `TrainingSampler`, without reading any image.

    Args:
        wide: whether each training image is wider than tall.
        batch_size: images per batch in this process.
        seed: seed of the order.
        grouped: whether to group by aspect ratio (`DATALOADER.ASPECT_RATIO_GROUPING`).
    """

    def __init__(self, wide: Sequence[bool], batch_size: int, seed: int, grouped: bool = True) -> None:
        self._wide, self._batch_size, self._seed, self._grouped = wide, batch_size, seed, grouped

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Iterate from the first batch."""
        rank, processes = comm.get_rank(), comm.get_world_size()
        waiting: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for place, index in enumerate(TrainingSampler(len(self._wide), seed=self._seed)):
            group = waiting[self._grouped and self._wide[index]]
            group.append((place * processes + rank, index))
            if len(group) == self._batch_size:
                yield list(group)
                group.clear()


class ResumableLoader:
    """Loads batches of samples starting at batch `first`; workers start when the first batch is requested.

    Attributes:
        first: number of batches already consumed before resuming; may be set until the first batch is requested.
    """

    def __init__(self, samples: NumberedSamples, batches: GroupedBatches, workers: int) -> None:
        self.first = 0
        self._samples, self._batches, self._workers = samples, batches, workers

    def __iter__(self) -> Iterator[list[Record]]:
        """Return an iterator that reads `first` only when it starts."""
        loader = Reader(
            self._samples,
            batch_sampler=_Order(self._batches, self.first),
            num_workers=self._workers,
            collate_fn=list,
            # Without it, the loader would draw from the global generator, and a resumed run would do so once more.
            generator=torch.Generator(),
        )
        yield from loader


class _Order:
    """A batch sampler that skips the batches already seen."""

    def __init__(self, batches: GroupedBatches, first: int) -> None:
        self._batches, self._first = batches, first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return itertools.islice(iter(self._batches), self._first, None)
