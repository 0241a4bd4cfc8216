"""Export the query network of a finished run, with its facts."""

from __future__ import annotations

import datetime
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ccop_hub.addresses import HF_PREFIX
from ccop_hub.formats.checkpoint import save_checkpoint
from ccop_hub.formats.tensor_checks import require_sound
from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD
from ccop_hub.saved_settings import plain

from ..method.objective import ContrastivePretraining
from ..settings import RunSettings
from ..views.listing import ImageListing
from .schedule import Schedule

PATHS = ("images", "proposals", "out", "probe", "init")
"""Settings that are local paths; an exported checkpoint only keeps their last component."""


def export(
    folder: Path, objective: ContrastivePretraining, settings: RunSettings, schedule: Schedule, listing: ImageListing
) -> Path:
    """Export the trained parts of the query encoder under canonical names, with the facts of the run.

    The pyramid is included only if a loss used boxes, so that no evaluation starts from an untrained pyramid.

    Returns:
        Path of the safetensors file.

    Raises:
        UserError: a tensor contains NaN or infinite values.
    """
    facts = run_facts(settings, schedule, listing)
    tensors = objective.query.network.state_dict()
    kept = {name: value.cpu() for name, value in tensors.items() if name.split(".", 1)[0] in facts["parts"]}
    # Convert before checking, since a finite float64 can overflow in float32.
    kept = {name: value.float() if value.is_floating_point() else value for name, value in kept.items()}
    require_sound(kept)
    return save_checkpoint(folder, kept, facts)


def run_facts(settings: RunSettings, schedule: Schedule, listing: ImageListing) -> dict[str, Any]:
    """Build the facts stored in the exported checkpoint."""
    resolved = plain(settings)
    # Addresses are kept, without their secrets; a registry name has a single component anyway.
    for name in PATHS:
        value = getattr(settings, name)
        if value is not None and not str(value).startswith(HF_PREFIX) and "://" not in str(value):
            resolved[name] = Path(value).expanduser().resolve().name
    return {
        "arch": settings.backbone,
        "objective": settings.objective,
        "parts": ["backbone", "fpn"] if settings.uses_boxes else ["backbone"],
        "dataset": {"name": listing.source.name, "images": len(listing), "digest": listing.digest},
        "steps": schedule.steps,
        "epochs": round(schedule.steps / schedule.steps_per_epoch, 3),
        "batch_size": settings.batch_size,
        "image_size": settings.image_size,
        "input": {"mean": list(PIXEL_MEAN), "std": list(PIXEL_STD), "channel_order": "RGB", "range": "0-255"},
        "settings": resolved,
        "versions": library_versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that affect a run's result."""
    packages = {"ccop_hub": "ccop-hub", "lightning": "lightning", "pillow": "pillow"}
    packages |= {name: name for name in ("torch", "torchvision", "timm")}
    return {"python": platform.python_version(), **{key: version(name) for key, name in packages.items()}}
