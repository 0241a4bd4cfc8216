"""Two weights measured in one run, so that their difference is paired; or one alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.fabric import Fabric

from ccop_hub.formats.checkpoint import Weights

from ..results.intervals import PairedIntervals
from ..results.result import Baseline, Metrics, WeightsIdentity
from ..settings import RunSettings
from .network import FrozenNetwork, resolve_pair

OWN, BASELINE = "weights", "against"
"""Keys of the two sides in every mapping of a paired run."""


def resolve_sides(settings: RunSettings) -> dict[str, Weights]:
    """The weights of each side; `against` is absent where there is none."""
    against = getattr(settings, "against", None)
    own, baseline = resolve_pair(settings.weights, against, settings.arch, settings.seed)
    return {OWN: own} if baseline is None else {OWN: own, BASELINE: baseline}


def load_sides(fabric: Fabric, sides: Mapping[str, Weights], parts: Sequence[str]) -> dict[str, FrozenNetwork]:
    """Each side's frozen network, on the process's device."""
    networks = {side: FrozenNetwork(weights, parts) for side, weights in sides.items()}
    for network in networks.values():
        network.to(fabric.device)
    return networks


def result_fields(
    networks: Mapping[str, FrozenNetwork],
    metrics: Mapping[str, Metrics],
    intervals: PairedIntervals,
    per_class: Mapping[str, dict[str, Metrics]],
    curves: Mapping[str, list[Metrics]] | None = None,
    rates: Mapping[str, float] | None = None,
) -> dict[str, Any]:
    """The fields of a `Result` that tell the sides apart; every network is first shown not to have changed.

    Args:
        networks: each side's network.
        metrics: each side's metrics.
        intervals: of both sides and their difference.
        per_class: each side's per-class metrics.
        curves: each side's learning curve.
        rates: each side's effective learning rate.
    """
    for network in networks.values():
        network.verify()
    own = networks[OWN]
    fields: dict[str, Any] = {
        "weights": WeightsIdentity.of(own.weights),
        "loaded": own.loaded,
        "tensors": own.tensors,
        "metrics": metrics[OWN],
        "intervals": intervals.own,
        "per_class": per_class[OWN],
        "curve": (curves or {}).get(OWN, []),
        "effective_lr": (rates or {}).get(OWN),
    }
    if BASELINE in networks:
        other = networks[BASELINE]
        fields["baseline"] = Baseline(
            weights=WeightsIdentity.of(other.weights),
            loaded=other.loaded,
            tensors=other.tensors,
            metrics=metrics[BASELINE],
            intervals=intervals.baseline,
            per_class=per_class[BASELINE],
            curve=(curves or {}).get(BASELINE, []),
            effective_lr=(rates or {}).get(BASELINE),
        )
        fields["paired"] = intervals.paired
    return fields
