"""The C4 detector's region heads: res5 on every region, followed by a norm.

Importing this module registers `Res5HeadsWithNorm` with Detectron2; the C4 protocols set it as
`MODEL.ROI_HEADS.NAME`.
"""

from __future__ import annotations

from typing import Any

from detectron2.layers import get_norm
from detectron2.modeling import ROI_HEADS_REGISTRY, ResNet
from detectron2.modeling.roi_heads import Res5ROIHeads
from torch import nn


@ROI_HEADS_REGISTRY.register()
class Res5HeadsWithNorm(Res5ROIHeads):  # type: ignore[misc]
    """`Res5ROIHeads` with a norm after res5, for ResNets of any depth.

    Detectron2 always builds res5 from bottleneck blocks; this class uses the blocks of the backbone's depth. The norm
    brings features, whose scale differs between pre-trained networks, to the scale that the predictors are initialised
    for (MoCo, He et al. 2020, appendix A.1).
    """

    @classmethod
    def _build_res5_block(cls, cfg: Any) -> tuple[nn.Sequential, int]:
        """Return res5, with the norm as its submodule `norm`, and its number of output channels."""
        options = {"norm": cfg.MODEL.RESNETS.NORM}
        if cfg.MODEL.RESNETS.DEPTH >= 50:
            options["stride_in_1x1"] = cfg.MODEL.RESNETS.STRIDE_IN_1X1
        blocks = ResNet.make_default_stages(cfg.MODEL.RESNETS.DEPTH, **options)[-1]
        channels: int = blocks[-1].out_channels
        res5 = nn.Sequential(*blocks)
        res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
        return res5, channels
