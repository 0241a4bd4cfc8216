"""Registry of published weights: locations, properties and published results.

Data only. Names have the form `arch.tag`; the tag specifies objective, data set and epochs. Results are those that the
cited source reports for exactly this recipe, with the id of the evaluation protocol.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..addresses import PACKAGE_PREFIX
from ..errors import UserError
from ..normalization import PIXEL_MEAN, PIXEL_STD


@dataclasses.dataclass(frozen=True)
class PublishedResult:
    """One published result.

    Attributes:
        protocol: id of the evaluation protocol.
        metrics: metric name -> value, in percent.
        source: publication that reports it.
    """

    protocol: str
    metrics: Mapping[str, float]
    source: str


@dataclasses.dataclass(frozen=True)
class Entry:
    """One set of published weights.

    Attributes:
        arch: timm name of the backbone.
        objective: `ccop` or `mocov2`.
        url: download URL, `gdrive:ID` for a file on Google Drive, or `package:FOLDER` for weights in this package.
        formats: formats (`formats.families.FAMILIES`) in which the authors distribute the file.
        digest: `md5:` or `sha256:` + leading hex digits, as published by the authors; None if unpublished.
        licence: SPDX id if there is one, else the authors' own wording.
        data: display name of the data set.
        epochs: number of training epochs.
        parts: contents of the file: `backbone`, `fpn`, `heads`.
        paper: arXiv id of the method.
        homepage: the authors' web page.
        results: published results.
        mean: mean of the input, RGB, 0-255 scale.
        std: standard deviation of the input, RGB, 0-255 scale.
        channel_order: currently always RGB.
    """

    arch: str
    objective: str
    url: str
    formats: tuple[str, ...]
    digest: str | None
    licence: str
    data: str
    epochs: int
    parts: tuple[str, ...]
    paper: str
    homepage: str
    results: tuple[PublishedResult, ...] = ()
    mean: tuple[float, float, float] = PIXEL_MEAN
    std: tuple[float, float, float] = PIXEL_STD
    channel_order: str = "RGB"

    def facts(self) -> dict[str, Any]:
        """Return the entry as checkpoint facts, with the same keys as an exported run."""
        return {
            "objective": self.objective,
            "dataset": {"name": self.data},
            "epochs": self.epochs,
            "input": {
                "mean": list(self.mean),
                "std": list(self.std),
                "channel_order": self.channel_order,
                "range": "0-255",
            },
            "licence": self.licence,
            "paper": self.paper,
            "homepage": self.homepage,
            "results": [
                {"protocol": result.protocol, "metrics": dict(result.metrics), "source": result.source}
                for result in self.results
            ],
        }


_MOCO = "https://dl.fbaipublicfiles.com/moco/moco_checkpoints"
_MOCO_PAGE = "https://github.com/facebookresearch/moco"
_INSLOC_TABLE = "InsLoc's table (limbo0000/InstanceLoc)"
_PIXPRO_TABLE = "PixPro's table (zdaxie/PixPro)"

_OWN_RECORDS = "this project (results/scenes/small-drawn)"

REGISTRY: Mapping[str, Entry] = {
    "resnet10t.ccop_synthetic_21ep": Entry(
        arch="resnet10t",
        objective="ccop",
        url=f"{PACKAGE_PREFIX}resnet10t.ccop_synthetic_21ep",
        formats=("canonical",),
        digest="sha256:3f4338ef7416c117933677c37855268d569db6573417aed5dab83bb478a3b5d2",
        licence="Apache-2.0",
        data="4,500 synthetic images",
        epochs=21,
        parts=("backbone",),
        paper="arXiv:2111.13651",
        homepage="https://github.com/ccop-hub/ccop-hub",
        results=(
            PublishedResult(
                "region-probe-2-stages+long_side=160,short_side=128",
                {"linear/mean_class": 16.77, "knn/mean_class": 12.87},
                _OWN_RECORDS,
            ),
            PublishedResult("knn+image_size=64", {"k20/top1": 14.70, "k100/top1": 15.78}, _OWN_RECORDS),
        ),
    ),
    "resnet50.ccop_coco_800ep": Entry(
        arch="resnet50",
        objective="ccop",
        url="gdrive:1M8YjO1zD0xFYSPHitlhv70YlW0N8cup6",
        formats=("ccop", "detectron2", "detectron2-backbone", "detectron2-c4"),
        digest=None,
        licence="not stated by the authors",
        data="COCO train2017",
        epochs=800,
        parts=("backbone", "fpn", "heads"),
        paper="arXiv:2111.13651",
        homepage="https://github.com/ChenhongyiYang/CCOP",
    ),
    "resnet50.mocov2_in1k_800ep": Entry(
        arch="resnet50",
        objective="mocov2",
        url=f"{_MOCO}/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar",
        formats=("moco",),
        digest="md5:a04e12f8",
        licence="CC-BY-NC-4.0",
        data="ImageNet-1k",
        epochs=800,
        parts=("backbone", "heads"),
        paper="arXiv:2003.04297",
        homepage=_MOCO_PAGE,
        results=(
            PublishedResult("coco-fpn-4conv1fc-1x", {"bbox/AP": 40.4, "segm/AP": 36.4}, _PIXPRO_TABLE),
            PublishedResult("linear-moco-lr30", {"top1": 71.1}, "the MoCo repository"),
        ),
    ),
    "resnet50.mocov2_in1k_200ep": Entry(
        arch="resnet50",
        objective="mocov2",
        url=f"{_MOCO}/moco_v2_200ep/moco_v2_200ep_pretrain.pth.tar",
        formats=("moco",),
        digest="md5:59fd9945",
        licence="CC-BY-NC-4.0",
        data="ImageNet-1k",
        epochs=200,
        parts=("backbone", "heads"),
        paper="arXiv:2003.04297",
        homepage=_MOCO_PAGE,
        results=(
            PublishedResult("coco-fpn-4conv1fc-1x", {"bbox/AP": 39.8, "segm/AP": 36.1}, _INSLOC_TABLE),
            PublishedResult("linear-moco-lr30", {"top1": 67.7}, "the MoCo repository"),
        ),
    ),
}

DEFAULTS: Mapping[str, str] = {
    "resnet10t": "resnet10t.ccop_synthetic_21ep",
    "resnet50": "resnet50.ccop_coco_800ep",
}
"""Architecture -> registry name of its default weights."""


def entry(name: str) -> Entry:
    """Look up a registry entry.

    Raises:
        UserError: the name is unknown; the message lists the available names.
    """
    if name not in REGISTRY:
        raise UserError(f"no weights named {name!r} in the registry: use one of {', '.join(REGISTRY)}")
    return REGISTRY[name]


def default_name(arch: str) -> str:
    """Return the registry name of the default weights for `arch`.

    Raises:
        UserError: no weights are published for this architecture; the message lists the alternatives.
    """
    if arch not in DEFAULTS:
        raise UserError(
            f"no published weights for {arch}: pass weights='random' for an untrained network, a checkpoint path or "
            f"hf-hub:ORG/NAME, or use an architecture with published weights ({', '.join(DEFAULTS)})"
        )
    return DEFAULTS[arch]


def packaged_name() -> str:
    """Return the registry name of the weights that are part of this package.

    Raises:
        UserError: there are none.
    """
    found = [name for name, entry in REGISTRY.items() if entry.url.startswith(PACKAGE_PREFIX)]
    if not found:
        raise UserError("no weights are part of this version of ccop-hub: give --weights, such as a finished run")
    return found[0]
