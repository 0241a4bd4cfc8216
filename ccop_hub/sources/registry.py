"""Published weights that the hub knows by name: where they are, what they are and what was measured with them.

Data only. A name is `arch.tag`; the tag says objective, data set and epochs. Figures are those that the named source
published for exactly these weights' recipe, each with the id of the protocol it was measured by.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ..errors import UserError
from ..normalization import PIXEL_MEAN, PIXEL_STD


@dataclasses.dataclass(frozen=True)
class PublishedResult:
    """One published figure or pair of figures.

    Attributes:
        protocol: id of the evaluation protocol.
        metrics: metric name -> value, in percent.
        source: who published it.
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
        url: where the file is; `gdrive:ID` for a file on Google Drive.
        formats: the formats (`formats.families.FAMILIES`) that the file may be in, as its authors write them.
        digest: `md5:` or `sha256:` + the leading hex digits that the authors published; None if they published none.
        licence: SPDX id if there is one, else the authors' words.
        data: data set name as people write it.
        epochs: passes over it.
        parts: what the file holds: `backbone`, `fpn`, `heads`.
        paper: arXiv id of the method.
        homepage: the authors' page.
        results: published figures.
        mean: of the input, RGB, 0-255 scale.
        std: of the input, RGB, 0-255 scale.
        channel_order: always RGB so far.
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
        """The entry as a checkpoint's facts, under the same keys as an exported run's."""
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

REGISTRY: Mapping[str, Entry] = {
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

DEFAULTS: Mapping[str, str] = {"resnet50": "resnet50.ccop_coco_800ep"}
"""The registry name that an architecture stands for where no weights are named."""


def entry(name: str) -> Entry:
    """The registry's entry of that name.

    Raises:
        UserError: there is none; the error lists those that there are.
    """
    if name not in REGISTRY:
        raise UserError(f"no weights named {name!r} in the registry: use one of {', '.join(REGISTRY)}")
    return REGISTRY[name]


def default_name(arch: str) -> str:
    """The registry name that `arch` stands for.

    Raises:
        UserError: nothing is published for that architecture; the error says what can be loaded instead.
    """
    if arch not in DEFAULTS:
        raise UserError(
            f"no published weights for {arch}: pass weights='random' for an untrained network, a checkpoint path or "
            f"hf-hub:ORG/NAME, or use an architecture with published weights ({', '.join(DEFAULTS)})"
        )
    return DEFAULTS[arch]
