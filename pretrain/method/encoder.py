"""The encoder: a backbone with a feature pyramid, plus heads that embed whole images and boxes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, normalize

from ccop_hub.architectures import FPN_CHANNELS, build_network, stage_channels

from .boxes import full_precision
from .pooling import BINS, REFERENCE_IMAGE_SIZE, RoISamples, pool_samples, sample_boxes

HEAD_INIT_STD = 0.01
"""Standard deviation of the initial weights of both heads, as in the authors' code."""


@dataclass(frozen=True)
class Features:
    """Features of a batch of images.

    Attributes:
        pooled: (N, C) average-pooled last stage.
        pyramid: `{"p2": (N, 256, H/4, W/4), ...}`; empty if the encoder has no box head.
    """

    pooled: Tensor
    pyramid: dict[str, Tensor]


class Encoder(nn.Module):
    """Embeds images from the last stage and boxes from the pyramid, with a separate head for each.

    Only the requested heads are built; without a box head, the pyramid is neither run nor trained.

    Args:
        arch: timm name of the backbone.
        dropout: dropout probability of both heads.
        image_size: side of the input images in pixels; the level thresholds scale with it.
        hidden_dim: hidden units of both heads.
        embedding_dim: dimension of both embeddings.
        image_head: whether to build the image head.
        box_head: whether to build the box head.
        head_init: `paper` (N(0, 0.01), biases 0) or `pytorch` (the default of `torch.nn.Linear`).
        head_norm: whether both heads use batch norm.
        zero_init_last: whether residual blocks start as the identity (timm's `zero_init_last`).
        groups: number of groups that a training batch is split into, so that each gets its own batch norm statistics.

    Attributes:
        network: the `BackboneFPN`, which is the part that gets exported.
    """

    def __init__(
        self,
        arch: str,
        dropout: float = 0.1,
        image_size: int = REFERENCE_IMAGE_SIZE,
        hidden_dim: int = 2048,
        embedding_dim: int = 128,
        image_head: bool = True,
        box_head: bool = True,
        head_init: Literal["paper", "pytorch"] = "paper",
        head_norm: bool = False,
        zero_init_last: bool = False,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.groups = groups
        self.image_size = image_size
        self.embedding_dim = embedding_dim
        self.network = build_network(arch)
        channels = stage_channels(self.network.backbone)[-1]
        cells = FPN_CHANNELS * BINS
        if zero_init_last:
            for block in self.network.backbone.modules():
                # timm's residual blocks have this method; the network itself may have a flag of the same name.
                if callable(zero_init := getattr(block, "zero_init_last", None)):
                    zero_init()
        options: dict[str, Any] = {"hidden": hidden_dim, "outputs": embedding_dim, "dropout": dropout}
        options |= {"init": head_init, "norm": head_norm}
        self.image_head = build_head(channels, **options) if image_head else None
        self.box_head = build_head(cells, **options) if box_head else None
        if self.box_head is None:
            self.network.fpn.requires_grad_(False)

    def forward(self, images: Tensor) -> Features:
        """Run the network on (N, 3, H, W) float RGB images, normalised with the checkpoint's mean and std."""
        parts = [self._features(part) for part in images.tensor_split(self._parts)]
        if len(parts) == 1:
            return parts[0]
        pyramid = {name: torch.cat([part.pyramid[name] for part in parts]) for name in parts[0].pyramid}
        return Features(torch.cat([part.pooled for part in parts]), pyramid)

    @property
    def _parts(self) -> int:
        return self.groups if self.training else 1

    def _features(self, images: Tensor) -> Features:
        stages = self.network.stages(images)
        pyramid = {} if self.box_head is None else self.network.pyramid(stages)
        return Features(stages["res5"].mean(dim=(2, 3)), pyramid)

    def embed_images(self, pooled: Tensor) -> Tensor:
        """Embed (N, C) pooled features as (N, embedding_dim) unit vectors, in float32 or float64.

        Raises:
            ValueError: the encoder has no image head.
        """
        if self.image_head is None:
            raise ValueError("this encoder has no image head")
        return self._embed(self.image_head, pooled, [1] * len(pooled))

    def embed_boxes(self, pyramid: dict[str, Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """Embed the boxes of each image.

        Args:
            pyramid: pyramid levels from `forward`.
            boxes: one (n_i, 4) float32 xyxy tensor per image, in pixels, on the CPU.

        Returns:
            (sum of n_i, embedding_dim) unit vectors, image by image, in float32 or float64.

        Raises:
            ValueError: the encoder has no box head.
        """
        self._require_box_head()
        samples = sample_boxes(pyramid, boxes, self.image_size)
        return self.embed_samples(pyramid, samples, [len(each) for each in boxes])

    def embed_samples(self, pyramid: dict[str, Tensor], samples: RoISamples, counts: Sequence[int]) -> Tensor:
        """Embed boxes whose sampling points are known, `counts[i]` of them in image i; otherwise like `embed_boxes`."""
        return self._embed(self._require_box_head(), pool_samples(pyramid, samples).flatten(1), counts)

    def _require_box_head(self) -> nn.Module:
        if self.box_head is None:
            raise ValueError("this encoder has no box head")
        return self.box_head

    def _embed(self, head: nn.Module, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Embed (sum of counts, C) features, `counts[i]` rows for image i, as (sum of counts, D) unit vectors."""
        groups = self._parts
        if groups == 1:
            return normalize(full_precision(head(rows)))
        per_group = [sum(part.tolist()) for part in torch.tensor(list(counts)).tensor_split(groups)]
        return normalize(full_precision(torch.cat([head(part) for part in torch.split(rows, per_group)])))


class HeadNorm(nn.BatchNorm1d):
    """Batch norm that falls back to its running statistics when given fewer than two rows."""

    def forward(self, rows: Tensor) -> Tensor:
        """(N, C) -> (N, C); N may be 0."""
        if self.training and len(rows) < 2:
            return batch_norm(rows, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(rows)


def build_head(
    inputs: int,
    hidden: int,
    outputs: int,
    dropout: float,
    init: Literal["paper", "pytorch"] = "paper",
    norm: bool = False,
) -> nn.Sequential:
    """Build a head: linear, batch norm (if `norm`), dropout, ReLU, linear. See `Encoder` for `init`."""
    layers: list[tuple[str, nn.Module]] = [
        ("hidden", nn.Linear(inputs, hidden)),
        *([("norm", HeadNorm(hidden))] if norm else []),
        ("dropout", nn.Dropout(dropout)),
        ("relu", nn.ReLU()),
        ("output", nn.Linear(hidden, outputs)),
    ]
    for _, layer in layers:
        if init == "paper" and isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=HEAD_INIT_STD)
            nn.init.zeros_(layer.bias)
    return nn.Sequential(OrderedDict(layers))
