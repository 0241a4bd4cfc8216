"""Typed settings of pre-training. Every default is the paper's run as the authors' code has it, unless it says why not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ObjectiveSettings:
    """The CCOP objective; a loss weight of 0 switches that loss, and what only it needs, off.

    Args:
        objective: `ccop` (image, box and intra-image losses) or `mocov2` (the image loss alone).
        temperature_image: InfoNCE temperature of the image loss.
        temperature_box: InfoNCE temperature of the box loss.
        momentum: share of the key encoder kept at each moving-average step.
        image_queue: image keys kept as negatives.
        box_queue: box keys kept as negatives.
        queue_end: what happens to box keys that run past the queue's end: `drop` them (the authors' code) or `wrap`.
        jitters: jittered copies of each key box; the unjittered box is one more candidate.
        iou_threshold: smallest IoU of a valid jitter with its box, at the start and the end of training.
        centre_magnitude: width of the uniform centre shift, in box sizes, at the start and the end of training.
        size_magnitude: width of the uniform log-size change, at the start and the end of training.
        intra_iou: key boxes of one image below this IoU count as two objects in the intra-image loss.
        intra_margin: margin of the intra-image hinge, in cosine similarity.
        dropout: dropout probability in both heads, of the query and of the key encoder.
        embedding_dim: length of the image and the box embedding.
        hidden_dim: hidden units of both heads.
        weight_image: weight of the image loss.
        weight_box: weight of the inter-image box loss.
        weight_intra: weight of the intra-image box loss.
    """

    objective: Literal["ccop", "mocov2"] = "ccop"
    temperature_image: float = 0.2
    temperature_box: float = 0.2
    momentum: float = 0.999
    image_queue: int = 65536
    box_queue: int = 65536
    queue_end: Literal["drop", "wrap"] = "drop"
    jitters: int = 10
    iou_threshold: tuple[float, float] = (0.8, 0.4)
    centre_magnitude: tuple[float, float] = (0.15, 0.6)
    size_magnitude: tuple[float, float] = (0.35, 1.4)
    intra_iou: float = 0.05
    intra_margin: float = 0.4
    dropout: float = 0.1
    embedding_dim: int = 128
    hidden_dim: int = 2048
    weight_image: float = 1.0
    weight_box: float = 1.0
    weight_intra: float = 1.0
