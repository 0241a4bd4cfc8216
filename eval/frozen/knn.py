"""`ccop-eval knn`: weighted k-nearest neighbours on frozen, average-pooled res5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ccop_hub.errors import UserError

from ..common import pictures
from ..common.compute import gather_rows, share
from ..common.images import class_means, read_rgb, read_splits, test_transform
from ..protocols import KnnProtocol, apply_settings
from ..results.class_names import shown_class
from ..results.intervals import mean_statistic
from ..results.result import Result
from ..settings import KnnSettings
from .driver import Measurement, Probe, ProbeData, Run, run_probe
from .features import image_features
from .neighbours import nearest_neighbours, true_class_rank


def run(settings: KnnSettings) -> Result:
    """Run the kNN probe and write `result.json` and pictures to `settings.out`."""
    return run_probe(KnnProbe(settings))


class KnnProbe(Probe[KnnSettings]):
    """Classifies each validation image by a vote of its nearest training images."""

    task = "knn"

    def read(self) -> ProbeData:
        """Read both splits and check the values of k against the number of training images."""
        self.protocol, self.protocol_id = apply_settings(KnnProtocol(), self.settings)
        self.train, self.val = read_splits(self.settings.data)
        self.neighbours = usable_neighbours(self.protocol.neighbours, len(self.train.paths))
        data = self.settings.data
        return ProbeData(
            name=data.name, root=data, files=[*self.train.paths, *self.val.paths], images=len(self.val.paths)
        )

    def measure(self, run: Run[KnnSettings]) -> Measurement:
        """Score the validation images for every k."""
        mine = share(run.fabric, len(self.val.paths))
        truth = [self.val.labels[index] for index in mine]
        hits: dict[str, dict[str, np.ndarray]] = {}
        nearest: dict[str, np.ndarray] = {}
        for side in run.networks:
            bank, queries = self._features(run, side)
            similarity, index = nearest_neighbours(bank, queries[mine], max(self.neighbours), run.fabric.device)
            votes = [
                true_class_rank(similarity, index, self.train.labels, truth, k, self.protocol.temperature)
                for k in self.neighbours
            ]
            ranks = gather_rows(run.fabric, torch.stack(votes, dim=1), len(self.val.paths))
            hits[side], nearest[side] = self._hits(ranks), index.numpy()
        dropped = [k for k in self.protocol.neighbours if k not in self.neighbours]
        return Measurement(
            statistics={side: mean_statistic(values) for side, values in hits.items()},
            per_class={
                side: {name: class_means(value, self.val) for name, value in values.items() if "top1" in name}
                for side, values in hits.items()
            },
            pictures={"nearest-images": lambda: self._draw(run, mine, nearest)},
            notes=[f"k = {k} left out: there are {len(self.train.paths)} training images" for k in dropped],
        )

    def _features(self, run: Run[KnnSettings], side: str) -> tuple[np.ndarray, np.ndarray]:
        """(M, D) and (N, D) float32 features of the training and validation images."""
        size, network = self.protocol.image_size, run.networks[side]
        batch = max(1, run.settings.batch_size // run.fabric.world_size)
        train, val = (
            run.features(
                side,
                split.paths,
                [1] * len(split.paths),
                image_features(
                    run.fabric, split.paths, test_transform(size), network.pooled, batch, run.settings.workers
                ),
                run.settings.cache,
                split=split.root.name,
                transform=f"test {size}",
                features="res5 average",
            )
            for split in (self.train, self.val)
        )
        return train, val

    def _hits(self, ranks: Tensor) -> dict[str, np.ndarray]:
        """Convert ranks of the true class, (N, values of k), to hits: metric name -> (N,) bool."""
        tops = (1, 5) if len(self.val.classes) > 5 else (1,)
        return {
            f"k{k}/top{top}": (ranks[:, column] < top).numpy()
            for column, k in enumerate(self.neighbours)
            for top in tops
        }

    def _draw(self, run: Run[KnnSettings], mine: Sequence[int], nearest: Mapping[str, np.ndarray]) -> Image.Image:
        """Draw queries with their nearest training images, one row per side."""
        train, val = self.train, self.val
        rows: list[list[pictures.Tile]] = []
        titles: list[str] = []
        for position in pictures.spread(len(mine), 6):
            query = mine[position]
            for side, index in nearest.items():
                found = [
                    (read_rgb(train.paths[row]), shown_class(train.classes[train.labels[row]]))
                    for row in index[position][:7].tolist()
                ]
                name = shown_class(val.classes[val.labels[query]])
                rows.append([(read_rgb(val.paths[query]), f"query:\n{name}"), *found])
                titles.append(run.title(side))
        return pictures.sheet(rows, (96, 96), titles)


def usable_neighbours(neighbours: Sequence[int], bank: int) -> list[int]:
    """The values of k that do not exceed the number of bank images.

    Raises:
        UserError: there are none.
    """
    usable = [k for k in neighbours if k <= bank]
    if not usable:
        raise UserError(f"{bank} training images are fewer than every k: set a smaller k with --neighbours")
    return usable
