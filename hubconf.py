"""Entry points for `torch.hub`: ResNet backbones pre-trained by CCOP, with or without their feature pyramid."""

from ccop_hub.hub import (  # noqa: F401
    ccop_resnet10t,
    ccop_resnet10t_fpn,
    ccop_resnet18,
    ccop_resnet18_fpn,
    ccop_resnet34,
    ccop_resnet34_fpn,
    ccop_resnet50,
    ccop_resnet50_fpn,
    ccop_resnet101,
    ccop_resnet101_fpn,
)

dependencies = ["torch", "torchvision", "timm", "safetensors", "huggingface_hub", "numpy"]
