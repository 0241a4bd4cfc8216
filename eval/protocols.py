"""Evaluation protocols as data: each id fixes every value that must match for two numbers to be comparable."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from .results.result import protocol_id

P = TypeVar("P")

SWEEP_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)
"""Learning rates of a sweep at a batch size of 256 (DINOv2, `eval/linear.py`)."""


@dataclass(frozen=True, kw_only=True)
class LinearProtocol:
    """A linear probe: SGD, momentum 0.9, no weight decay, heads from N(0, 0.01) with bias 0, backbone in eval mode.

    Attributes:
        id: protocol id.
        epochs: passes over the training data.
        batch_size: samples per step.
        image_size: side of training and test crops, in pixels.
        rates: learning rates, one per head.
        scale_rates: whether to multiply them by batch size / 256.
        normalised: whether to also train a head per rate on batch-normalised features.
        steps: epochs after which the rate is divided by ten; None uses cosine decay to 0.
        holdout: fraction of the training data used to select the head; 0 if there is only one head.
    """

    id: str
    epochs: int
    batch_size: int
    image_size: int
    rates: tuple[float, ...]
    scale_rates: bool
    normalised: bool
    steps: tuple[int, ...] | None
    holdout: float


LINEAR_PROTOCOLS = {
    protocol.id: protocol
    for protocol in (
        LinearProtocol(
            id="linear-sweep",
            epochs=10,  # as in DINOv2, where an epoch has 1250 batches
            batch_size=256,
            image_size=224,
            rates=SWEEP_RATES,
            scale_rates=True,
            normalised=True,
            steps=None,
            holdout=0.1,
        ),
        # MoCo's main_lincls.py and the MoCo v2 command in its README
        LinearProtocol(
            id="linear-moco-lr30",
            epochs=100,
            batch_size=256,
            image_size=224,
            rates=(30.0,),
            scale_rates=False,
            normalised=False,
            steps=(60, 80),
            holdout=0.0,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class KnnProtocol:
    """Weighted kNN on L2-normalised, average-pooled res5 (Wu et al. 2018, section 3.4; MoCo v2's follow-ups).

    Attributes:
        id: protocol id.
        neighbours: values of k.
        temperature: temperature of the vote weights.
        image_size: side of the test crop, in pixels.
    """

    id: str = "knn"
    neighbours: tuple[int, ...] = (10, 20, 100, 200)
    temperature: float = 0.07
    image_size: int = 224


@dataclass(frozen=True, kw_only=True)
class VocSvmProtocol:
    """VOC2007 linear SVMs (Goyal et al. 2019; costs and number of folds as in its benchmark code).

    Attributes:
        id: protocol id.
        costs: values of C: 0.01, 0.1 and 2^-4 .. 2^-19.
        image_size: side of the test crop, in pixels; 224 gives the 7 x 7 map that pools to 2 x 2.
    """

    id: str = "voc07-svm"
    costs: tuple[float, ...] = (0.01, 0.1, *(0.5**power for power in range(4, 20)))
    image_size: int = 224


@dataclass(frozen=True, kw_only=True)
class RegionProtocol:
    """The region probe: averaged 7 x 7 RoIAlign features of ground-truth boxes, a balanced linear head, and kNN.

    Features are standardised with the training boxes' statistics. The head is a logistic regression in which every
    class counts the same, and the votes of the kNN are divided by the size of their class: both aim at the mean over
    the classes. Version 2; the first version's head, a sweep of SGD rates on unbalanced boxes, often predicted only the
    most frequent class.

    Attributes:
        id: protocol id; the kind of features is appended to it.
        short_side: shorter side of the image, in pixels (like `long_side`, Detectron2's test size).
        long_side: maximum longer side of the image, in pixels.
        penalties: L2 penalties of the head to choose from; the loss is the mean cross-entropy plus half of the penalty
            times the squared norm of the weights.
        holdout: fraction of the training images used to choose the penalty.
        neighbours: k of the kNN.
        temperature: temperature of the kNN's vote weights.
    """

    id: str = "region-probe-2"
    short_side: int = 800
    long_side: int = 1333
    penalties: tuple[float, ...] = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
    holdout: float = 0.2
    neighbours: int = 20
    temperature: float = 0.07


@dataclass(frozen=True, kw_only=True)
class SegmentationProtocol:
    """Cityscapes segmentation with a two-layer convolutional head on a stride-16 ResNet, without auxiliary loss.

    Attributes:
        id: protocol id.
        head_dilation: dilation of the head's two 3x3 convolutions.
        optimizer: `sgd` (momentum 0.9) or `adam`.
        lr: peak learning rate.
        schedule: `steps` (divided by ten at 70 % and 90 %) or `poly` (power 0.9).
        batch_size: crops per step.
        iterations: optimizer steps; 0 if the protocol specifies `epochs` instead.
        epochs: passes over the training images; 0 if it specifies `iterations`.
        scale_to: width and height, in pixels, to resize images to first; (0, 0) keeps the original size.
        crop_size: side of training crops, in pixels.
        stride: stride, in pixels, of the sliding test window of side `crop_size`; 0 tests whole images.
        frozen: whether to train only the head.
    """

    id: str
    head_dilation: int
    optimizer: Literal["sgd", "adam"]
    lr: float
    schedule: Literal["steps", "poly"]
    batch_size: int
    iterations: int
    epochs: int
    scale_to: tuple[int, int]
    crop_size: int
    stride: int
    frozen: bool = False


SEGMENTATION_PROTOCOLS = {
    protocol.id: protocol
    for protocol in (
        # MoCo (appendix of He et al. 2020) and SlotCon: 90k iterations, steps at 63k and 81k
        SegmentationProtocol(
            id="cityscapes-fcn16-90k",
            head_dilation=6,
            optimizer="sgd",
            lr=0.01,
            schedule="steps",
            batch_size=16,
            iterations=90_000,
            epochs=0,
            scale_to=(2049, 1025),
            crop_size=769,
            stride=513,
        ),
        # Revisiting-Contrastive-SSL (Van Gansbeke et al. 2021)
        SegmentationProtocol(
            id="cityscapes-fcn16-150ep",
            head_dilation=1,
            optimizer="adam",
            lr=1e-4,
            schedule="poly",
            batch_size=8,
            iterations=0,
            epochs=150,
            scale_to=(0, 0),
            crop_size=768,
            stride=0,
        ),
    )
}


def apply_settings(protocol: P, settings: Any, further: Sequence[str] = ()) -> tuple[P, str]:
    """Apply settings to a protocol; returns the changed protocol and its id, including departures.

    A setting overrides the protocol's value with the same name unless it is None.

    Args:
        protocol: the protocol.
        settings: the run's settings.
        further: names of settings outside the protocol to include in the id unless they are empty.
    """
    names = [entry.name for entry in dataclasses.fields(protocol) if entry.name != "id"]  # type: ignore[arg-type]
    given = {name: getattr(settings, name, None) for name in names}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    changed = {name: value for name, value in given.items() if value is not None and value != getattr(protocol, name)}
    departed = dataclasses.replace(protocol, **changed)  # type: ignore[type-var]
    changed |= {name: tuple(getattr(settings, name)) for name in further if getattr(settings, name)}
    shown = {name: _shown(value) for name, value in changed.items()}
    return departed, protocol_id(protocol.id, shown)  # type: ignore[attr-defined]


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return "/".join(_shown(item) for item in value)
    return value if isinstance(value, str) else f"{value:g}"
