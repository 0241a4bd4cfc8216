"""Export of a finished run: the query network with its facts."""

from __future__ import annotations

import datetime
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ccop_hub.formats.checkpoint import save_checkpoint
from ccop_hub.formats.tensor_checks import require_sound
from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD
from ccop_hub.saved_settings import plain
from ccop_hub.sources import huggingface

from ..method.objective import ContrastivePretraining
from ..settings import RunSettings
from ..views.listing import ImageListing
from .schedule import Schedule

PATHS = ("images", "proposals", "out", "probe", "init")
"""Settings that hold paths of the machine; an exported checkpoint keeps only the last part of each."""

PUBLIC = (huggingface.PREFIX, "https://")
"""What `init` starts with where it names no place on a machine; a name of the registry is its own last part."""


def export(
    folder: Path, objective: ContrastivePretraining, settings: RunSettings, schedule: Schedule, listing: ImageListing
) -> Path:
    """Write the query encoder's trained parts under canonical names, with the run's facts.

    The pyramid is exported if a loss used boxes. An untrained one is left out, so that no evaluation starts from it by
    mistake.

    Returns:
        The safetensors file.

    Raises:
        UserError: a tensor contains NaN or infinite numbers.
    """
    facts = run_facts(settings, schedule, listing)
    tensors = objective.query.network.state_dict()
    kept = {name: value.cpu() for name, value in tensors.items() if name.split(".", 1)[0] in facts["parts"]}
    # Narrowed before they are checked: a float64 may be finite and its float32 not.
    kept = {name: value.float() if value.is_floating_point() else value for name, value in kept.items()}
    require_sound(kept)
    return save_checkpoint(folder, kept, facts)


def run_facts(settings: RunSettings, schedule: Schedule, listing: ImageListing) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    resolved = plain(settings)
    for name in PATHS:
        value = getattr(settings, name)
        if value is not None and not str(value).startswith(PUBLIC):
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
    """Versions of what a run's result depends on."""
    packages = {"ccop_hub": "ccop-hub", "lightning": "lightning", "kornia": "kornia", "pillow": "pillow"}
    packages |= {name: name for name in ("torch", "torchvision", "timm")}
    return {"python": platform.python_version(), **{key: version(name) for key, name in packages.items()}}
