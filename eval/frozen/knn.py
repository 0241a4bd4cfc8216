"""`ccop-eval knn`: weighted nearest neighbours on the frozen, pooled res5 of two weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ccop_hub.errors import UserError
from ccop_hub.files import files_digest

from ..common import pictures
from ..common.compute import gather_rows, launch, share
from ..common.images import ClassFolders, class_means, read_rgb, read_splits, test_transform
from ..common.run_folder import RunFolder
from ..protocols import KnnProtocol, apply_settings
from ..results.intervals import bootstrap, mean_statistic
from ..results.result import DataIdentity, Metrics
from ..settings import KnnSettings
from .features import cached_features, image_features
from .paired import BASELINE, OWN, load_sides, resolve_sides, result_fields

QUERY_BLOCK, BANK_BLOCK = 512, 65536
"""Rows of queries and of the memory bank that are compared at a time: what fits a small device."""


def run(settings: KnnSettings) -> None:
    """Compute or read the features, vote, and write `result.json` and pictures into `settings.out`."""
    fabric = launch(settings)
    protocol, protocol_id = apply_settings(KnnProtocol(), settings)
    sides = resolve_sides(settings)
    train, val = read_splits(settings.data)
    folder = RunFolder(fabric, settings)
    data = DataIdentity(
        name=settings.data.name,
        digest=files_digest(settings.data, [*train.paths, *val.paths]),
        images=len(val.paths),
    )
    networks = load_sides(fabric, sides, ("backbone",))
    transform = test_transform(protocol.image_size)
    neighbours = usable_neighbours(protocol.neighbours, len(train.paths))
    mine = share(fabric, len(val.paths))
    ranks: dict[str, Tensor] = {}
    nearest: dict[str, np.ndarray] = {}
    for side, network in networks.items():
        features = []
        for split in (train, val):
            identity = {
                "weights": network.weights.digest,
                "data": data.digest,
                "split": split.root.name,
                "transform": f"test {protocol.image_size}",
                "features": "res5 average",
                "precision": settings.precision,
            }
            batch = max(1, settings.batch_size // fabric.world_size)
            compute = image_features(fabric, split.paths, transform, network.pooled, batch, settings.workers)
            features.append(cached_features(fabric, settings.cache, identity, [1] * len(split.paths), compute))
        similarity, index = nearest_neighbours(features[0], features[1][mine], max(neighbours), fabric.device)
        votes = [
            true_class_rank(similarity, index, train.labels, [val.labels[i] for i in mine], k, protocol.temperature)
            for k in neighbours
        ]
        ranks[side] = gather_rows(fabric, torch.stack(votes, dim=1), len(val.paths))
        nearest[side] = index.numpy()
    hits = {side: _hits(values, neighbours, len(val.classes)) for side, values in ranks.items()}
    statistics = {side: mean_statistic(values) for side, values in hits.items()}
    intervals = bootstrap(len(val.paths), statistics[OWN], statistics.get(BASELINE), settings.seed)
    metrics: dict[str, Metrics] = {
        side: {name: float(100 * value.mean()) for name, value in values.items()} for side, values in hits.items()
    }
    per_class = {
        side: {name: class_means(value, val) for name, value in hits[side].items() if "top1" in name} for side in hits
    }
    if folder.main:
        _draw(folder, train, val, mine, nearest)
    dropped = [k for k in protocol.neighbours if k not in neighbours]
    folder.finish(
        task="knn",
        protocol=protocol_id,
        data=data,
        notes=[f"k = {k} left out: there are {len(train.paths)} training images" for k in dropped],
        **result_fields(networks, metrics, intervals, per_class),
    )


def usable_neighbours(neighbours: Sequence[int], bank: int) -> list[int]:
    """The values of k that a bank of that many images allows.

    Raises:
        UserError: none does, or one is not positive.
    """
    if min(neighbours, default=0) < 1:
        raise UserError("--neighbours takes positive numbers: give values of k such as [10,20]")
    usable = [k for k in neighbours if k <= bank]
    if not usable:
        raise UserError(f"{bank} training images are fewer than every k: give a smaller k by --neighbours")
    return usable


def nearest_neighbours(bank: np.ndarray, queries: np.ndarray, k: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """The k bank rows of highest cosine similarity to each query, highest first.

    Neither array has to fit into memory: blocks of both are compared in turn.

    Args:
        bank: (M, D) float32.
        queries: (N, D) float32.
        k: at most M.
        device: where to compute.

    Returns:
        (N, k) similarities and (N, k) bank indices, on the CPU.
    """
    similarities, indices = [], []
    for start in range(0, len(queries), QUERY_BLOCK):
        block = _unit(queries[start : start + QUERY_BLOCK], device)
        best = torch.empty(len(block), 0, device=device)
        index = torch.empty(len(block), 0, dtype=torch.int64, device=device)
        for first in range(0, len(bank), BANK_BLOCK):
            values = block @ _unit(bank[first : first + BANK_BLOCK], device).T
            top = values.topk(min(k, values.shape[1]), dim=1)
            best, index = torch.cat([best, top.values], 1), torch.cat([index, top.indices + first], 1)
            kept = best.topk(min(k, best.shape[1]), dim=1)
            best, index = kept.values, index.gather(1, kept.indices)
        similarities.append(best.cpu())
        indices.append(index.cpu())
    if not similarities:
        return torch.empty(0, k), torch.empty(0, k, dtype=torch.int64)
    return torch.cat(similarities), torch.cat(indices)


def class_votes(similarity: Tensor, index: Tensor, labels: Sequence[int], k: int, temperature: float) -> Tensor:
    """Votes of the k nearest, each weighing exp(similarity / temperature): (N, classes) float64.

    Args:
        similarity: (N, K >= k), highest first.
        index: (N, K) bank rows.
        labels: class of each bank row.
        k: how many vote.
        temperature: of the weights.
    """
    classes = torch.tensor(labels)
    # Weights are relative to the nearest one, so that a small temperature cannot overflow.
    weights = ((similarity[:, :k] - similarity[:, :1]).double() / temperature).exp()
    votes = torch.zeros(len(index), int(classes.max()) + 1, dtype=torch.float64)
    return votes.scatter_add_(1, classes[index[:, :k]], weights)


def true_class_rank(
    similarity: Tensor, index: Tensor, labels: Sequence[int], truth: Sequence[int], k: int, temperature: float
) -> Tensor:
    """Number of classes that got more votes than the true one, (N,) int64; a class without a vote is never found."""
    votes = class_votes(similarity, index, labels, k, temperature)
    own = votes.gather(1, torch.tensor(truth, dtype=torch.int64).unsqueeze(1))
    higher = (votes > own).sum(1)
    return torch.where(own.squeeze(1) > 0, higher, votes.shape[1])


def _unit(rows: np.ndarray, device: torch.device) -> Tensor:
    return F.normalize(torch.from_numpy(np.array(rows, dtype=np.float32)).to(device), dim=1)


def _hits(ranks: Tensor, neighbours: Sequence[int], classes: int) -> dict[str, np.ndarray]:
    tops = (1, 5) if classes > 5 else (1,)
    return {f"k{k}/top{top}": (ranks[:, column] < top).numpy() for column, k in enumerate(neighbours) for top in tops}


def _draw(
    folder: RunFolder, train: ClassFolders, val: ClassFolders, mine: list[int], nearest: dict[str, np.ndarray]
) -> None:
    """A sheet of queries, each with its nearest training images, a row a side."""
    rows: list[list[pictures.Tile]] = []
    titles: list[str] = []
    for position in pictures.spread(len(mine), 6):
        query = mine[position]
        for side, index in nearest.items():
            tile: Any = (read_rgb(val.paths[query]), f"query:\n{val.classes[val.labels[query]]}")
            found = [
                (read_rgb(train.paths[row]), train.classes[train.labels[row]]) for row in index[position][:7].tolist()
            ]
            rows.append([tile, *found])
            titles.append(f"{side}: {getattr(folder.settings, side)}")
    pictures.save(pictures.sheet(rows, (96, 96), titles), folder.pictures / "nearest-images.png")
