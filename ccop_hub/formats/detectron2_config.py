"""Detectron2 configuration for converted weights.

A detector built from Detectron2's `mask_rcnn_R_50_FPN_1x.yaml` loads every tensor but computes different features: it
strides in the 1x1 convolutions, uses BGR images without dividing by a standard deviation, and freezes its norms.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from .checkpoint import Weights

_DEPTHS = {
    "resnet18": 18,
    "resnet34": 34,
    "resnet50": 50,
    "resnet101": 101,
    "resnet152": 152,
    "wide_resnet50_2": 50,
    "wide_resnet101_2": 101,
    "resnext50_32x4d": 50,
    "resnext101_32x4d": 101,
    "resnext101_32x8d": 101,
    "resnext101_64x4d": 101,
}

_GROUPS = {
    "wide_resnet50_2": (1, 128),
    "wide_resnet101_2": (1, 128),
    "resnext50_32x4d": (32, 4),
    "resnext101_32x4d": (32, 4),
    "resnext101_32x8d": (32, 8),
    "resnext101_64x4d": (64, 4),
}
"""`NUM_GROUPS` and `WIDTH_PER_GROUP`; (1, 64) for all others."""

_STAGES = ["res2", "res3", "res4", "res5"]

NORM = "SyncBN"
"""Norm of backbone and pyramid, left trainable. Detectron2 replaces it with plain BN in a single process."""


def detectron2_config(weights: Weights, parts: tuple[str, ...], file: Path) -> str:
    """Return the YAML for a detector with feature pyramid, to merge into the configuration of `get_cfg()`.

    Args:
        weights: the converted weights; RGB.
        parts: parts in the file. Without `fpn`, the pyramid starts untrained and has no norms.
        file: the weights file.
    """
    model = _model(weights, file)
    model["BACKBONE"]["NAME"] = "build_resnet_fpn_backbone"
    model["RESNETS"]["OUT_FEATURES"] = _STAGES
    model["FPN"] = {"IN_FEATURES": _STAGES, "NORM": NORM if "fpn" in parts else ""}
    return _text(model)


def detectron2_c4_config(weights: Weights, parts: tuple[str, ...], file: Path) -> str:
    """Return the YAML for a C4 detector, whose head contains `res5`; takes the arguments of `detectron2_config`."""
    model = _model(weights, file)
    model["BACKBONE"]["NAME"] = "build_resnet_backbone"
    model["RESNETS"]["OUT_FEATURES"] = ["res4"]
    model["RPN"] = {"IN_FEATURES": ["res4"]}
    model["ROI_HEADS"] = {"NAME": "Res5ROIHeads", "IN_FEATURES": ["res4"]}
    return _text(model)


def _model(weights: Weights, file: Path) -> dict[str, Any]:
    shown = weights.facts["input"]
    scale = 255.0 if shown.get("range") == "0-1" else 1.0
    groups, width = _GROUPS.get(weights.arch, (1, 64))
    depth = _DEPTHS[weights.arch]
    return {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "WEIGHTS": str(file),
        "PIXEL_MEAN": [float(value) * scale for value in shown["mean"]],
        "PIXEL_STD": [float(value) * scale for value in shown["std"]],
        "BACKBONE": {"FREEZE_AT": 0},
        "RESNETS": {
            "DEPTH": depth,
            "NUM_GROUPS": groups,
            "WIDTH_PER_GROUP": width,
            "RES2_OUT_CHANNELS": 256 if depth > 34 else 64,
            "NORM": NORM,
            "STRIDE_IN_1X1": False,
        },
    }


def _text(model: dict[str, Any]) -> str:
    config = {"MODEL": model, "INPUT": {"FORMAT": "RGB"}}
    return yaml.dump(config, Dumper=_Plain, sort_keys=False, default_flow_style=None)


class _Plain(yaml.SafeDumper):
    """A dumper that writes no anchors for repeated lists."""

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value out."""
        return True
