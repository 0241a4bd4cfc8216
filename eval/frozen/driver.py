"""The driver shared by all frozen-feature evaluations; each evaluation implements a `Probe`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from lightning.fabric import Fabric
from PIL import Image
from torch import Tensor

from ccop_hub.formats.checkpoint import Weights
from ccop_hub.frozen_network import FrozenNetwork

from ..common import pictures
from ..common.compute import launch, lightning_precision
from ..common.images import data_digest, require_regular
from ..common.run_folder import RunFolder
from ..results.intervals import RESAMPLES, PairedIntervals, Statistic, bootstrap
from ..results.result import Against, Curve, DataIdentity, Metrics, Result, WeightsIdentity, defined
from ..settings import RunSettings
from .features import cached_features
from .sides import AGAINST, OWN, load_sides, resolve_sides

S = TypeVar("S", bound=RunSettings)


@dataclass(frozen=True, kw_only=True)
class ProbeData:
    """The data used by a probe.

    Attributes:
        name: the data set's name, for tables.
        root: folder that contains all files; its location is not part of the data digest.
        files: all files that training and scoring read.
        images: number of scored images.
        contents: prepared files that replace some of `files` and differ in content.
    """

    name: str
    root: Path
    files: Sequence[Path]
    images: int
    contents: Sequence[Path] = ()


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """A probe's measurements; mappings are keyed by side (`OWN`, `AGAINST`).

    Attributes:
        statistics: computes all metrics from how often each image was drawn.
        per_class: metric -> class -> value.
        pictures: file stem -> function that draws the picture; called only in the main process.
        curves: learning curves, if anything was trained.
        rates: peak learning rates after scaling, if anything was trained by SGD.
        details: additional tables for the result.
        notes: caveats for readers of the result, one sentence each.
    """

    statistics: Mapping[str, Statistic]
    per_class: Mapping[str, dict[str, Metrics]]
    pictures: Mapping[str, Callable[[], Image.Image]]
    curves: Mapping[str, Curve] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Run(Generic[S]):
    """The context that the driver prepares for a probe.

    Attributes:
        fabric: the processes.
        settings: the run's settings.
        folder: the output folder.
        protocol_id: protocol id, including departures.
        data: identity of the scored data.
        networks: each side's frozen network, on the process's device.
    """

    fabric: Fabric
    settings: S
    folder: RunFolder
    protocol_id: str
    data: DataIdentity
    networks: Mapping[str, FrozenNetwork]

    @property
    def identity(self) -> dict[str, Any]:
        """Identity of the run that a saved state belongs to; other runs' states are refused."""
        return {
            "weights": {side: network.weights.digest for side, network in self.networks.items()},
            "data": self.data.digest,
            "protocol": self.protocol_id,
            "seed": self.settings.seed,
        }

    def features(
        self,
        side: str,
        paths: Sequence[Path],
        rows: Sequence[int],
        compute: Callable[[Sequence[int]], Iterable[Tensor]],
        cache: Path | None,
        **computed: str,
    ) -> np.ndarray:
        """Load one side's features from the cache, or compute them; see `cached_features`.

        Args:
            side: the side whose network to use.
            paths: the images.
            rows: number of feature rows per image.
            compute: yields the images' features.
            cache: the feature cache's folder.
            computed: everything the features depend on besides weights, data and precision.
        """
        identity = {
            **computed,
            "weights": self.networks[side].weights.digest,
            "data": self.data.digest,
            "precision": lightning_precision(self.settings),
        }
        return cached_features(self.fabric, cache, identity, paths, rows, compute)

    def title(self, side: str) -> str:
        """One-line picture title that names a side's weights."""
        return f"{side}: {self.networks[side].weights.name}"


class Probe(ABC, Generic[S]):
    """Base class of frozen-feature evaluations. The driver calls `read`, `adapt` and `measure`, in this order.

    Args:
        settings: the run's settings.

    Attributes:
        task: the task's name in results.
        packages: additional packages whose versions to record.
        resamples: number of bootstrap resamples.
        parts: parts of the weights to load.
        protocol_id: protocol id, including departures; set by the end of `adapt`.
    """

    task: ClassVar[str]
    packages: ClassVar[tuple[str, ...]] = ()
    resamples: ClassVar[int] = RESAMPLES
    parts: tuple[str, ...] = ("backbone",)
    protocol_id: str

    def __init__(self, settings: S) -> None:
        self.settings = settings

    @abstractmethod
    def read(self) -> ProbeData:
        """List the data and check the settings against it, before anything is downloaded.

        Raises:
            UserError: the data or settings are invalid.
        """

    def adapt(self, sides: Mapping[str, Weights]) -> None:
        """Set attributes that depend on the weights, such as `parts`.

        Raises:
            UserError: the weights lack a part that the settings require.
        """

    @abstractmethod
    def measure(self, run: Run[S]) -> Measurement:
        """Compute features, fit the classifier and score it."""


def run_probe(probe: Probe[Any]) -> Result:
    """Run a probe and write `result.json` and pictures to `settings.out`.

    Local inputs are checked first, so that a wrong folder fails before any download.
    """
    settings = probe.settings
    fabric = launch(settings)
    read = probe.read()
    require_regular(read.files)
    with RunFolder(fabric, settings) as folder:
        return folder.finished or _carry_out(probe, fabric, read, folder)


def _carry_out(probe: Probe[Any], fabric: Fabric, read: ProbeData, folder: RunFolder) -> Result:
    settings = probe.settings
    sides = resolve_sides(settings)
    probe.adapt(sides)
    data = DataIdentity(name=read.name, digest=data_digest(read.root, read.files, read.contents), images=read.images)
    run = Run(
        fabric=fabric,
        settings=settings,
        folder=folder,
        protocol_id=probe.protocol_id,
        data=data,
        networks=load_sides(fabric, sides, probe.parts),
    )
    found = probe.measure(run)
    for network in run.networks.values():
        network.verify()
    statistics = found.statistics
    intervals = bootstrap(data.images, statistics[OWN], statistics.get(AGAINST), settings.seed, probe.resamples)
    if folder.main:
        for name, draw in found.pictures.items():
            pictures.save(draw(), folder.pictures / f"{name}.png")
    return _finish(probe, run, found, intervals)


def _finish(probe: Probe[Any], run: Run[Any], found: Measurement, intervals: PairedIntervals) -> Result:
    """Write the result of a measurement."""
    once = np.ones(run.data.images, dtype=np.int64)
    metrics = {side: defined(statistic(once)) for side, statistic in found.statistics.items()}

    def fields(side: str, limits: dict[str, tuple[float, float]]) -> dict[str, Any]:
        network = run.networks[side]
        return {
            "weights": WeightsIdentity.of(network.weights),
            "loaded": network.loaded,
            "tensors": network.tensors,
            "metrics": metrics[side],
            "intervals": limits,
            "per_class": found.per_class[side],
            "curve": found.curves.get(side, []),
            "effective_lr": found.rates.get(side),
        }

    return run.folder.finish(
        packages=probe.packages,
        task=probe.task,
        protocol=run.protocol_id,
        data=run.data,
        details=dict(found.details),
        notes=list(found.notes),
        against=Against(**fields(AGAINST, intervals.against)) if AGAINST in run.networks else None,
        paired=intervals.paired,
        **fields(OWN, intervals.own),
    )
