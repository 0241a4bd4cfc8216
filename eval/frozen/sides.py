"""The sides of a run: `weights` and, in a paired run, `against`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.fabric import Fabric

from ccop_hub.formats.checkpoint import Weights
from ccop_hub.frozen_network import FrozenNetwork
from ccop_hub.sources.resolve import RANDOM, resolve

from ..settings import RunSettings

OWN, AGAINST = "weights", "against"
"""Keys of the two sides in all mappings."""


def resolve_sides(settings: RunSettings) -> dict[str, Weights]:
    """Resolve each side's weights; `AGAINST` is absent in an unpaired run.

    `random` weights on one side take the other side's architecture.

    Raises:
        UserError: see `ccop_hub.sources.resolve.resolve`.
    """
    own, against, seed = settings.weights, getattr(settings, "against", None), settings.seed
    if against is None:
        return {OWN: resolve(own, settings.backbone, seed)}
    if own == RANDOM and settings.backbone is None and against != RANDOM:
        second = resolve(against, None, seed)
        return {OWN: resolve(own, second.arch, seed), AGAINST: second}
    first = resolve(own, settings.backbone, seed)
    return {OWN: first, AGAINST: resolve(against, first.arch if against == RANDOM else None, seed)}


def load_sides(fabric: Fabric, sides: Mapping[str, Weights], parts: Sequence[str]) -> dict[str, FrozenNetwork]:
    """Load each side's frozen network onto the process's device."""
    networks = {side: FrozenNetwork(weights, parts) for side, weights in sides.items()}
    for network in networks.values():
        network.to(fabric.device)
    return networks
