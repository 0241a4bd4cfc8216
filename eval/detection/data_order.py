"""Training data whose order and augmentation depend on the seed alone, and which can start at any batch.

Detectron2 draws augmentations from its workers' random state and cannot say where it is in the data, so that a run
that was stopped would resume with other images. Here every sample has a number: it decides which image it is and what
is drawn for it, whatever process loads it.
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
from torch.utils.data import DataLoader, Dataset

Record = dict[str, Any]
"""One image with its annotations, in Detectron2's form."""


class NumberedSamples(Dataset[Record]):
    """Samples by (number, index of the record); what is drawn for one is seeded by its number.

    Args:
        records: the training images.
        mapper: `detectron2.data.DatasetMapper`, which reads and augments.
        seed: of the run.
    """

    def __init__(self, records: Sequence[Record], mapper: Callable[[Record], Record], seed: int) -> None:
        # Detectron2's list is one block of memory, which worker processes share instead of copying.
        self._records = DatasetFromList(list(records), copy=False)
        self._mapper = mapper
        self._seed = seed

    def __getitem__(self, sample: tuple[int, int]) -> Record:
        """The augmented sample; numpy's global state is left as it was."""
        number, index = sample
        before = np.random.get_state()
        np.random.seed(np.random.SeedSequence((self._seed, number)).generate_state(8))
        try:
            return self._mapper(self._records[index])
        finally:
            np.random.set_state(before)


class GroupedBatches:
    """One process's endless batches of (number, index), each of wide images or of tall ones alone.

    The same batches as Detectron2's own grouping by aspect ratio makes of its `TrainingSampler`, found without reading
    an image.

    Args:
        wide: of each training image, whether it is wider than tall.
        batch_size: images a batch, of this process.
        seed: of the order.
        grouped: whether to group at all (`DATALOADER.ASPECT_RATIO_GROUPING`).
    """

    def __init__(self, wide: Sequence[bool], batch_size: int, seed: int, grouped: bool = True) -> None:
        self._wide, self._batch_size, self._seed, self._grouped = wide, batch_size, seed, grouped

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """From the first batch on."""
        rank, processes = comm.get_rank(), comm.get_world_size()
        waiting: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for place, index in enumerate(TrainingSampler(len(self._wide), seed=self._seed)):
            group = waiting[self._grouped and self._wide[index]]
            group.append((place * processes + rank, index))
            if len(group) == self._batch_size:
                yield list(group)
                group.clear()


class ResumableLoader:
    """Batches of samples, from batch `first` on; workers start when the first batch is asked for.

    Attributes:
        first: number of batches that an earlier part of the run has had; may be set until the first batch is taken.
    """

    def __init__(self, samples: NumberedSamples, batches: GroupedBatches, workers: int) -> None:
        self.first = 0
        self._samples, self._batches, self._workers = samples, batches, workers

    def __iter__(self) -> Iterator[list[Record]]:
        """An iterator that reads `first` once it is started."""
        loader = DataLoader(
            self._samples,
            batch_sampler=_Order(self._batches, self.first),
            num_workers=self._workers,
            collate_fn=list,
            # Else it would draw a number from the global generator, at the first step of a run or of its second part.
            generator=torch.Generator(),
        )
        yield from loader


class _Order:
    """A batch sampler that leaves out the batches already seen."""

    def __init__(self, batches: GroupedBatches, first: int) -> None:
        self._batches, self._first = batches, first

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return itertools.islice(iter(self._batches), self._first, None)
