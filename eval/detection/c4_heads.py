"""The C4 detector's region heads: res5 on every region, with one norm after it.

Imported for its effect: Detectron2's registry then knows `Res5HeadsWithNorm`, as `MODEL.ROI_HEADS.NAME` of the C4
protocols.
"""

from __future__ import annotations

from typing import Any

from detectron2.layers import get_norm
from detectron2.modeling import ROI_HEADS_REGISTRY, ResNet
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn


@ROI_HEADS_REGISTRY.register()
class Res5HeadsWithNorm(Res5ROIHeads):  # type: ignore[misc]
    """`Res5ROIHeads` with a norm after res5, for residual networks of every depth.

    Detectron2 builds res5 of bottleneck blocks alone; this takes the stage that the backbone of the same depth would
    have. The norm keeps the head's features at the scale that its predictors start at: pre-trained networks differ in
    it (MoCo, He et al. 2020, appendix A.1).
    """

    @classmethod
    def _build_res5_block(cls, cfg: Any) -> tuple[nn.Sequential, int]:
        """res5 with the norm under the name `norm`, and its output channels."""
        options = {"norm": cfg.MODEL.RESNETS.NORM}
        if cfg.MODEL.RESNETS.DEPTH >= 50:
            options["stride_in_1x1"] = cfg.MODEL.RESNETS.STRIDE_IN_1X1
        blocks = ResNet.make_default_stages(cfg.MODEL.RESNETS.DEPTH, **options)[-1]
        channels: int = blocks[-1].out_channels
        res5 = nn.Sequential(*blocks)
        res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return res5, channels
