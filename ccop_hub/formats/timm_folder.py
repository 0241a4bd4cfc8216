"""timm checkpoint folders: `config.json` and `model.safetensors`, as on the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError, one_line
from ..regular_files import read_json
from .facts import checked_facts

TIMM_CONFIG_FILE = "config.json"
TIMM_WEIGHTS_FILE = "model.safetensors"
TIMM_FILES = (TIMM_WEIGHTS_FILE, "pytorch_model.bin")
"""Weights files that timm looks for, in order."""


def timm_facts(config: Path) -> dict[str, Any] | None:
    """Read the facts in a timm `config.json`: architecture, and mean and std of the input on the 0-255 scale.

    Returns:
        The facts, or None if the file belongs to another library.

    Raises:
        UserError: the file is not JSON, or is a timm configuration with a field of the wrong type.
    """
    try:
        content = read_json(config)
    except OSError as error:
        raise UserError(f"cannot read {config} ({error.strerror or error}): download it again, or remove it") from None
    except ValueError:
        raise UserError(f"{config} is not JSON: download it again, or give another weights file") from None
    if not isinstance(content, dict) or "architecture" not in content:
        return None
    shown = content.get("pretrained_cfg") or {}
    if not isinstance(shown, dict):
        raise UserError(f"{config}: its field pretrained_cfg is {one_line(repr(shown), 60)}, not an object: correct it")
    facts: dict[str, Any] = {"arch": content["architecture"]}
    if shown.get("mean") is not None and shown.get("std") is not None:
        facts["input"] = {
            "mean": _on_byte_scale(shown["mean"]),
            "std": _on_byte_scale(shown["std"]),
            "channel_order": "RGB",
            "range": "0-255",
        }
    return checked_facts(facts, config)


def _on_byte_scale(values: Any) -> Any:
    """Scale numbers from 0-1 to 0-255; return anything else unchanged for validation to report."""
    if isinstance(values, list) and all(isinstance(value, int | float) for value in values):
        return [round(255 * value, 6) for value in values]
    return values


def timm_config(arch: str, num_features: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Build the `config.json` of a backbone without classifier."""
    return {
        "architecture": arch,
        "num_classes": 0,
        "num_features": num_features,
        "global_pool": "avg",
        "pretrained_cfg": pretrained_cfg(arch, facts),
    }


def pretrained_cfg(arch: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Build timm's `pretrained_cfg`, with mean and std on the 0-1 scale."""
    from timm.models import get_pretrained_cfg

    shown, known = facts["input"], get_pretrained_cfg(arch)
    tag = {"tag": facts["objective"]} if facts.get("objective") else {}
    return {
        **tag,
        "num_classes": 0,
        "input_size": [3, 224, 224],
        "pool_size": [7, 7],
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": [round(value / 255, 9) for value in shown["mean"]],
        "std": [round(value / 255, 9) for value in shown["std"]],
        "first_conv": getattr(known, "first_conv", None) or "conv1",
        "classifier": getattr(known, "classifier", None) or "fc",
        "custom_load": False,
    }
