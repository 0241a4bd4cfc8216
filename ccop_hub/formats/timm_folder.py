"""timm's folder of a checkpoint: `config.json` beside `model.safetensors`, as on the Hugging Face Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UserError

TIMM_CONFIG_FILE = "config.json"
TIMM_WEIGHTS_FILE = "model.safetensors"
TIMM_FILES = (TIMM_WEIGHTS_FILE, "pytorch_model.bin")
"""Weights files that timm looks for, in this order."""


def timm_facts(config: Path) -> dict[str, Any]:
    """The facts in a timm `config.json`: architecture, and the input's mean and std on the 0-255 scale.

    Raises:
        UserError: not a timm configuration.
    """
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        facts: dict[str, Any] = {"arch": content["architecture"]}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{config} is not a timm configuration: give the weights file itself") from None
    shown = content.get("pretrained_cfg") or {}
    if "mean" in shown and "std" in shown:
        facts["input"] = {
            "mean": [round(255 * value, 6) for value in shown["mean"]],
            "std": [round(255 * value, 6) for value in shown["std"]],
            "channel_order": "RGB",
            "range": "0-255",
        }
    return facts


def timm_config(arch: str, num_features: int, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The `config.json` of a backbone without classifier."""
    return {
        "architecture": arch,
        "num_classes": 0,
        "num_features": num_features,
        "global_pool": "avg",
        "pretrained_cfg": pretrained_cfg(facts),
    }


def pretrained_cfg(facts: Mapping[str, Any]) -> dict[str, Any]:
    """What timm keeps of weights under that name; mean and std on the 0-1 scale."""
    shown = facts["input"]
    return {
        "tag": str(facts.get("objective", "")),
        "num_classes": 0,
        "input_size": [3, 224, 224],
        "pool_size": [7, 7],
        "crop_pct": 0.875,
        "interpolation": "bilinear",
        "mean": [round(value / 255, 9) for value in shown["mean"]],
        "std": [round(value / 255, 9) for value in shown["std"]],
        "first_conv": "conv1",
        "classifier": "fc",
        "custom_load": False,
    }
