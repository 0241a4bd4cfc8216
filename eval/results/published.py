"""Published numbers that are comparable to measured ones: same protocol, same data."""

from __future__ import annotations

from dataclasses import dataclass

from ccop_hub.sources.registry import REGISTRY

SCORED_IMAGES = {
    "coco-fpn-4conv1fc-1x": 5000,
    "coco-fpn-4conv1fc-2x": 5000,
    "coco-fpn-2fc-1x": 5000,
    "coco-fpn-2fc-2x": 5000,
    "coco-c4-1x": 5000,
    "coco-c4-2x": 5000,
    "voc-c4-24k": 4952,
    "cityscapes-fcn16-90k": 500,
    "cityscapes-fcn16-150ep": 500,
    "linear-moco-lr30": 50_000,
    "knn": 50_000,
    "voc07-svm": 4952,
}
"""Number of images behind each protocol's published numbers: val of COCO, ImageNet, Cityscapes; test of VOC2007.

A measured group with a different number of images used different data, whatever the name of its folder.
"""


@dataclass(frozen=True)
class Published:
    """One published row.

    Attributes:
        label: description of the weights.
        protocol: protocol id.
        metrics: metric name -> value, in percent.
        source: the publication.
    """

    label: str
    protocol: str
    metrics: dict[str, float]
    source: str


def _mask_rcnn(label: str, box: float, mask: float, source: str) -> Published:
    return Published(label, "coco-fpn-4conv1fc-1x", {"bbox/AP": box, "segm/AP": mask}, source)


BEYOND_THE_REGISTRY = (
    _mask_rcnn("random", 32.8, 29.9, "PixPro"),
    _mask_rcnn("supervised ImageNet", 39.7, 35.9, "PixPro"),
    _mask_rcnn("PixPro ImageNet 100 ep", 40.8, 36.8, "PixPro"),
    _mask_rcnn("SlotCon COCO 800 ep", 41.0, 37.0, "SlotCon"),
    _mask_rcnn("InsLoc ImageNet 200 ep", 41.4, 37.1, "InsLoc"),
    _mask_rcnn("SlotCon ImageNet 200 ep", 41.8, 37.8, "SlotCon"),
    _mask_rcnn("SoCo ImageNet 100 ep", 42.3, 37.6, "SoCo"),
    _mask_rcnn("SoCo ImageNet 400 ep", 43.0, 38.2, "SoCo"),
    Published("MoCo v2 COCO 800 ep", "cityscapes-fcn16-150ep", {"best/mIoU": 71.3}, "Revisiting-Contrastive-SSL"),
    Published("MoCo v2 ImageNet 200 ep", "knn", {"k20/top1": 55.7}, "mmselfsup"),
    Published("MoCo v2 ImageNet 200 ep", "voc07-svm", {"mAP": 84.0}, "mmselfsup"),
)
"""Published ResNet-50 numbers that the hub's registry does not list."""


def published_numbers(protocol: str, images: int) -> list[Published]:
    """Published rows for a group of results; empty if the protocol has departures or the data differ.

    Args:
        protocol: protocol id, including departures.
        images: number of scored images.
    """
    if SCORED_IMAGES.get(protocol) != images:
        return []
    registered = [
        Published(name, result.protocol, dict(result.metrics), result.source)
        for name, entry in REGISTRY.items()
        for result in entry.results
    ]
    return [row for row in (*registered, *BEYOND_THE_REGISTRY) if row.protocol == protocol]
