"""`ccop-eval regions`: the region probe of two weights over the same boxes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from lightning.fabric import Fabric
from PIL import Image

from ccop_hub.errors import UserError
from ccop_hub.files import files_digest
from ccop_hub.formats.checkpoint import Weights

from ..common import pictures
from ..common.compute import derived_seed, launch
from ..common.images import read_rgb
from ..common.run_folder import RunFolder
from ..frozen.features import cached_features
from ..frozen.knn import class_votes, nearest_neighbours
from ..frozen.network import FrozenNetwork
from ..frozen.paired import BASELINE, OWN, load_sides, resolve_sides, result_fields
from ..protocols import RegionProtocol, apply_settings
from ..results.intervals import bootstrap
from ..results.result import DataIdentity, Metrics
from ..settings import RegionSettings
from .accuracy import accuracy_statistic, class_accuracy
from .coco_boxes import BoxedImages, read_splits
from .head_sweep import HeadSweep
from .roi_features import Kind, ScaledImages, box_features

HOLDOUT_DRAW, QUERY_DRAW = 1, 4
"""Keep the seeds of unlike draws apart."""


def run(settings: RegionSettings) -> None:
    """Compute or read the features, classify, and write `result.json` and pictures into `settings.out`."""
    fabric = launch(settings)
    sides = resolve_sides(settings)
    kind = choose_features(settings, sides)
    base = RegionProtocol()
    protocol, protocol_id = apply_settings(dataclasses.replace(base, id=f"{base.id}-{kind}"), settings)
    train, val = read_splits(settings.data)
    labels = np.concatenate(train.labels)
    kept, held = split_images(train, protocol.holdout, settings.seed)
    folder = RunFolder(fabric, settings)
    files = [train.annotations, val.annotations, *train.paths, *val.paths]
    data = DataIdentity(name=settings.data.name, digest=files_digest(settings.data, files), images=len(val.paths))
    networks = load_sides(fabric, sides, ("backbone", "fpn") if kind == "pyramid" else ("backbone",))
    features = {
        name: {
            side: _features(fabric, settings, protocol, kind, network, split, data.digest)
            for side, network in networks.items()
        }
        for name, split in (("train", train), ("val", val))
    }
    sweep = HeadSweep(features["train"], labels, len(train.classes), kept, held, protocol, settings.seed, fabric.device)
    sweep.train(
        folder,
        {
            "weights": {side: weights.digest for side, weights in sides.items()},
            "data": data.digest,
            "protocol": protocol_id,
            "seed": settings.seed,
        },
    )
    chosen, heads = sweep.choose()
    hits, nearest = _classify(sweep, features, train, val, protocol, chosen, heads)
    statistics = {side: accuracy_statistic(val, values) for side, values in hits.items()}
    intervals = bootstrap(len(val.paths), statistics[OWN], statistics.get(BASELINE), settings.seed)
    once = np.ones(len(val.paths), dtype=np.int64)
    metrics: dict[str, Metrics] = {side: _defined(statistic(once)) for side, statistic in statistics.items()}
    per_class = {side: {name: class_accuracy(val, value) for name, value in hits[side].items()} for side in hits}
    if folder.main:
        _draw(folder, train, val, nearest)
    folder.finish(
        task="regions",
        protocol=protocol_id,
        data=data,
        details={"heads": heads, "chosen": {side: sweep.specs[index].label for side, index in chosen.items()}},
        notes=_notes(train, val, held, kind),
        **result_fields(
            networks,
            metrics,
            intervals,
            per_class,
            sweep.curves,
            {side: sweep.specs[index].rate for side, index in chosen.items()},
        ),
    )


def choose_features(settings: RegionSettings, sides: Mapping[str, Weights]) -> Kind:
    """What boxes are pooled from; the same for all sides, or the comparison would be of the two kinds.

    Raises:
        UserError: the pyramid was asked for and some weights have none.
    """
    without = [weights.name for weights in sides.values() if "fpn" not in weights.parts]
    if settings.features == "pyramid" and without:
        raise UserError(f"{', '.join(without)} has no feature pyramid: pass --features stages to compare the backbones")
    if settings.features == "auto":
        return "stages" if without else "pyramid"
    return settings.features


def split_images(train: BoxedImages, holdout: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of boxes to train on and rows held out, split by image: boxes of one image resemble each other.

    Raises:
        UserError: not a share between 0 and 1, or fewer than two images.
    """
    count = len(train.paths)
    if not 0 < holdout < 1 or count < 2:
        raise UserError(
            f"--holdout {holdout:g} of {count} training images: give a share between 0 and 1, and two images"
        )
    order = np.random.default_rng(derived_seed(seed, HOLDOUT_DRAW)).permutation(count)
    held_images = order[: min(count - 1, max(1, round(holdout * count)))]
    held = np.isin(train.owners, held_images)
    return np.flatnonzero(~held), np.flatnonzero(held)


def _features(
    fabric: Fabric,
    settings: RegionSettings,
    protocol: RegionProtocol,
    kind: Kind,
    network: FrozenNetwork,
    split: BoxedImages,
    digest: str,
) -> np.ndarray:
    identity = {
        "weights": network.weights.digest,
        "data": digest,
        "split": split.annotations.name,
        "transform": f"short side {protocol.short_side}, long side {protocol.long_side}",
        "features": f"boxes from {kind}",
        "precision": settings.precision,
    }
    images = ScaledImages(split, protocol.short_side, protocol.long_side)
    compute = box_features(fabric, images, network, kind, settings.workers)
    return cached_features(fabric, settings.cache, identity, split.counts, compute)


def _classify(
    sweep: HeadSweep,
    features: Mapping[str, Mapping[str, np.ndarray]],
    train: BoxedImages,
    val: BoxedImages,
    protocol: RegionProtocol,
    chosen: Mapping[str, int],
    heads: Mapping[str, list[dict[str, Any]]],
) -> tuple[dict[str, dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Each side's hits on val by classifier, (N,) bool, and each val box's nearest training boxes, (N, k).

    Every head's accuracy on val is added to its entry in `heads`.
    """
    labels, truth = np.concatenate(train.labels), np.concatenate(val.labels)
    neighbours = min(protocol.neighbours, len(labels))
    hits: dict[str, dict[str, np.ndarray]] = {}
    nearest: dict[str, np.ndarray] = {}
    for side in features["val"]:
        linear = sweep.predict(side, features["val"][side]).numpy()
        for head, predicted in zip(heads[side], linear, strict=True):
            head["val/overall"] = float(100 * (predicted == truth).mean())
        similarity, index = nearest_neighbours(features["train"][side], features["val"][side], neighbours, sweep.device)
        voted = class_votes(similarity, index, labels.tolist(), neighbours, protocol.temperature).argmax(1).numpy()
        hits[side] = {"linear": linear[chosen[side]] == truth, "knn": voted == truth}
        nearest[side] = index.numpy()
    return hits, nearest


def _defined(values: Mapping[str, float]) -> Metrics:
    return {name: None if math.isnan(value) else value for name, value in values.items()}


def _notes(train: BoxedImages, val: BoxedImages, held: np.ndarray, kind: Kind) -> list[str]:
    boxes = f"{sum(val.counts)} boxes scored, {sum(train.counts)} boxes of training images"
    return [
        f"{boxes}, of which {len(held)} chose the heads",
        "pooled from the feature pyramid"
        if kind == "pyramid"
        else "pooled from the backbone's four stages, no pyramid",
    ]


def _draw(folder: RunFolder, train: BoxedImages, val: BoxedImages, nearest: Mapping[str, np.ndarray]) -> None:
    """A sheet of a few boxes, each with its nearest training boxes, a row a side."""
    count = sum(val.counts)
    generator = np.random.default_rng(derived_seed(folder.settings.seed, QUERY_DRAW))
    queries = np.sort(generator.choice(count, size=min(6, count), replace=False))
    rows: list[list[pictures.Tile]] = []
    titles: list[str] = []
    for query in queries.tolist():
        for side, index in nearest.items():
            picture, name = _crop(val, query)
            found = [_crop(train, row) for row in index[query][:7].tolist()]
            rows.append([(picture, f"query:\n{name}"), *found])
            titles.append(f"{side}: {getattr(folder.settings, side)}")
    pictures.save(pictures.sheet(rows, (96, 96), titles), folder.pictures / "nearest-regions.png")


def _crop(split: BoxedImages, row: int) -> tuple[Image.Image, str]:
    """A box's pixels and its class name."""
    image = int(split.owners[row])
    within = row - sum(split.counts[:image])
    x1, y1, x2, y2 = split.boxes[image][within].tolist()
    box = (
        math.floor(x1),
        math.floor(y1),
        max(math.ceil(x2), math.floor(x1) + 1),
        max(math.ceil(y2), math.floor(y1) + 1),
    )
    return read_rgb(split.paths[image]).crop(box), split.classes[int(split.labels[image][within])]
