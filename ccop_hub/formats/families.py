"""Which project's layout a checkpoint has, and which network to use if it contains several.

Data only: how each project names its networks, and which one its authors evaluate and release. If a file contains two
complete networks, `ROLES` and `FAMILIES` decide; docs/libraries/checkpoints.md has the same rules as a table.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Collection

SECONDARY_WORDS = frozenset(("k", "key", "momentum", "m", "target", "ema", "student", "averaged"))
"""Words in a network's name, separated by dots and underscores, that mark a network not to use: MoCo's key encoder and
other moving averages, BYOL's target, averaged copies of the weights, DINO's student."""

PRIMARY_STATE_KEYS = ("state_dict", "model_state_dict", "model", "teacher", "model_ema", "blobs")
"""Keys of a checkpoint file in order of preference, if nothing else decides."""


@dataclasses.dataclass(frozen=True)
class Family:
    """One project's layout.

    Attributes:
        name: short name for reports.
        title: display name of the project.
        style: naming style of the backbone (`styles.STYLES`).
        prefix: matches the prefix of the backbone's names.
        marker: matches another name that must be present; None if the prefix suffices.
        alone: the state dict must contain nothing but the network.
    """

    name: str
    title: str
    style: str
    prefix: str
    marker: str | None = None
    alone: bool = False

    def fits(self, style: str, prefix: str, names: Collection[str], has_more: bool) -> bool:
        """Whether a network found under `prefix` in `names` belongs to this family."""
        if style != self.style or not re.fullmatch(self.prefix, prefix) or (self.alone and has_more):
            return False
        return self.marker is None or any(re.match(self.marker, name) for name in names)


FAMILIES = (
    Family("lightning", "this project, in training", "torchvision", r"objective\.query\.network\.backbone\."),
    Family("ccop", "the CCOP authors' training checkpoint", "detectron2", r"backbone_q\.bottom_up\."),
    Family("detectron2", "Detectron2 with feature pyramid", "detectron2", r"backbone\.bottom_up\."),
    Family("detectron2-c4", "Detectron2 C4", "detectron2", r"backbone\."),
    Family("detectron2-backbone", "Detectron2 names of a converted backbone", "detectron2", r""),
    Family("caffe2", "Detectron's Caffe2 names", "caffe2", r""),
    Family("slotcon", "SlotCon", "torchvision", r"encoder_[qk]\.", r"grouping_k\.slot_embed"),
    Family("moco", "MoCo v1 or v2", "torchvision", r"encoder_[qk]\."),
    Family("moco-v3", "MoCo v3", "torchvision", r"(base|momentum)_encoder\."),
    Family("soco", "SoCo", "torchvision", r"encoder\.", r"neck\.lateral_convs\."),
    Family("pixpro", "PixPro, or SoCo's C4", "torchvision", r"encoder\.", r"encoder_k\."),
    Family("simsiam", "SimSiam", "torchvision", r"encoder\."),
    Family("byol", "BYOL", "torchvision", r"(online|target)_(encoder|network|net)\.(net\.)?"),
    Family("dino", "DINO", "torchvision", r"backbone\.", r"head\.last_layer\."),
    Family("canonical", "this project", "torchvision", r"backbone\.", r"fpn\.inner_blocks\.0\.0\.weight"),
    Family("mmdetection", "mmdetection with feature pyramid", "torchvision", r"backbone\.", r"neck\.lateral_convs\."),
    Family("canonical", "this project, the backbone alone", "torchvision", r"backbone\.", alone=True),
    Family("solo-learn", "solo-learn", "torchvision", r"backbone\.", r"(momentum_backbone|projector|classifier)\."),
    Family("openselfsup", "OpenSelfSup or mmselfsup (MoCo, DenseCL, BYOL, ORL, ...)", "torchvision", r"backbone\."),
    Family("torchvision", "torchvision's detectors", "torchvision", r"backbone\.body\."),
    Family("torchvision", "torchvision with feature pyramid", "torchvision", r"body\."),
    Family("vissl", "VISSL", "torchvision", r"(.*\.)?_feature_blocks\."),
    Family("swav", "SwAV", "torchvision", r"", r"projection_head\."),
    Family("torchvision", "torchvision or timm (the same names)", "torchvision", r""),
    Family("transformers", "Hugging Face transformers", "transformers", r"(.*\.)?"),
    Family("lightly", "lightly, or the numbered children of a ResNet", "sequential", r"(.*\.)?"),
    Family("torchvision", "torchvision or timm names under a prefix", "torchvision", r".*\."),
    Family("detectron2", "Detectron2 names under a prefix", "detectron2", r".*\."),
    Family("caffe2", "Detectron's Caffe2 names", "caffe2", r".*\."),
)
"""Checked in order; the last ones match any prefix."""


def is_secondary(where: str, names: Collection[str]) -> bool:
    """Whether the location of a network in a checkpoint marks it as one not to use.

    Args:
        where: keys of the file or prefix of the names, joined by dots.
        names: all names in the state dict.
    """
    found = set(re.split(r"[._]", where.lower()))
    if any(name.startswith("grouping_k.slot_embed") for name in names):
        # SlotCon is an exception: its authors transfer the teacher, which they call the key encoder.
        return "q" in found
    return bool(found & SECONDARY_WORDS)
