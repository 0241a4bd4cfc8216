"""Any timm backbone below Detectron2's feature pyramid.

Importing this module registers `build_timm_fpn_backbone` with Detectron2; `configure` sets it as `MODEL.BACKBONE.NAME`
for networks that Detectron2's own ResNet cannot represent.
"""

from __future__ import annotations

from typing import Any

from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool
from torch import Tensor, nn

from ccop_hub.architectures import STAGES, backbone_stages, build_backbone, stage_channels, stage_indices

NAME = "build_timm_fpn_backbone"


class TimmBackbone(Backbone):  # type: ignore[misc]
    """A timm network that returns `res2` to `res5`.

    Args:
        arch: timm name.
        synchronised: whether batch norm uses the statistics of all processes.
    """

    def __init__(self, arch: str, synchronised: bool) -> None:
        super().__init__()
        body = build_backbone(arch)
        self._indices, channels = stage_indices(body), stage_channels(body)
        self.body = nn.SyncBatchNorm.convert_sync_batchnorm(body) if synchronised else body  # type: ignore[no-untyped-call]
        self._shapes = {
            name: ShapeSpec(channels=count, stride=stride)
            for (name, stride), count in zip(STAGES.items(), channels, strict=True)
        }

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the stages of (N, 3, H, W) normalised images."""
        return backbone_stages(self.body, images, self._indices)

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Return the channels and stride of each stage."""
        return dict(self._shapes)

    @property
    def size_divisibility(self) -> int:
        """Stride of the last stage: image sides are padded to a multiple of it."""
        return STAGES["res5"]


@BACKBONE_REGISTRY.register()  # type: ignore[untyped-decorator]
def build_timm_fpn_backbone(cfg: Any, input_shape: ShapeSpec) -> FPN:
    """Build the backbone `MODEL.TIMM.ARCH` with Detectron2's pyramid."""
    return FPN(
        bottom_up=TimmBackbone(cfg.MODEL.TIMM.ARCH, cfg.MODEL.RESNETS.NORM == "SyncBN"),
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=LastLevelMaxPool(),
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )
