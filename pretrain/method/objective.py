"""Curricular contrastive object-level pre-training (CCOP, arXiv 2111.13651).

Each image has two views, with boxes that mark the same objects in both. The query encoder is trained on the first view;
the key encoder, its moving average, embeds the second. The objective is a weighted sum of three losses:

- image: each image is contrasted with past images, using its other view as the positive. This loss alone is MoCo v2.
- box: each box is contrasted with past boxes, using its hardest positive, the least similar of several jittered copies
  of the box in the other view. The jitter grows over training (the curriculum).
- intra: each box is contrasted with the other objects in its image, using a hinge loss with a margin.

A training step with gradient accumulation:

    objective.begin_step()
    totals = objective.totals(batch)
    outputs = []
    for part in batch.split(parts):
        outputs.append(objective(part, totals))
        outputs[-1].loss.backward()
    result = objective.end_step(outputs, totals)
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ccop_hub.errors import UserError

from ..common.distributed import BatchShuffle, gather_rows
from ..settings import ObjectiveSettings
from .batch import ViewBatch
from .curriculum import BoxNoise, Curriculum
from .encoder import Encoder, Features
from .host_value import HostValue
from .losses import candidate_rows, different_objects, hardest_candidates, info_nce, intra_image_hinge
from .monitors import batch_accuracy, embedding_std, image_of_rows, jitter_monitors, similarity_monitors
from .plan import BoxPlan, DevicePlan, HostPlan, plan_boxes
from .queues import KeyQueue


@dataclass(frozen=True)
class Totals:
    """Denominators of the losses in one step, counted over this process's full batch.

    Attributes:
        images: number of images.
        boxes: number of boxes in one view.
        pairs: number of pairs of different objects within an image.
    """

    images: int
    boxes: int
    pairs: int


@dataclass
class PartOutput:
    """Output of the objective for a batch, or for part of one. Everything but `loss` is detached.

    Attributes:
        loss: 0-d, this part's share of the batch loss, the weighted sum of `losses`; call backward on it.
        losses: this part's share of each active loss (`image`, `box`, `intra`).
        accuracies: this part's share of the contrastive accuracy for `image` and `box`: how often the positive is more
            similar than every negative.
        queries: (n, D) query embeddings for `image` and `box`.
        keys: (n, D) keys to enqueue for `image` and `box`.
        rows: number of rows per image in `queries` and `keys`, for `image` and `box`.
        valid: (n, J + 1) bool on the CPU, the valid hard-positive candidates; None without the box loss.
        lengths: number of keys of each process, for `image` and `box`.
    """

    loss: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    accuracies: dict[str, Tensor] = field(default_factory=dict)
    queries: dict[str, Tensor] = field(default_factory=dict)
    keys: dict[str, Tensor] = field(default_factory=dict)
    rows: dict[str, list[int]] = field(default_factory=dict)
    valid: Tensor | None = None
    lengths: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class StepOutput:
    """Output of a full step, detached.

    Attributes:
        loss: 0-d, the weighted sum of `losses`.
        losses: 0-d each, the active losses (`image`, `box`, `intra`), unweighted.
        monitors: 0-d metrics of this process's batch; empty if not requested.
    """

    loss: Tensor
    losses: dict[str, Tensor]
    monitors: dict[str, Tensor]


class ContrastivePretraining(nn.Module):
    """The query and key encoders, the queues and the step counter; `forward` computes the loss.

    All randomness (permutation, jitters, dropout) comes from torch's global generators. Under DistributedDataParallel,
    use `broadcast_buffers=False`: BN statistics are local to each process, and the queues are already in sync.

    Args:
        settings: the objective; `mocov2` has only the image loss, and its batches need no boxes.
        arch: timm name of the backbone.
        total_steps: total training steps, at which the curriculum ends.
        image_size: side of the views in pixels.

    Attributes:
        query: the trained encoder; `query.network` is the result of pre-training.
        key: the moving average of `query`, without gradients.
        loss_weights: weights of the active losses.
        step: 0-d long, number of steps begun.

    Raises:
        UserError: every loss has weight 0, or the backbone is unknown.
    """

    step: Tensor

    def __init__(self, settings: ObjectiveSettings, arch: str, total_steps: int, image_size: int) -> None:
        super().__init__()
        self.settings = settings
        self.loss_weights = loss_weights(settings)
        self.query = Encoder(
            arch,
            dropout=settings.dropout,
            image_size=image_size,
            hidden_dim=settings.hidden_dim,
            embedding_dim=settings.embedding_dim,
            image_head="image" in self.loss_weights,
            box_head="box" in self.loss_weights or "intra" in self.loss_weights,
            head_init=settings.head_init,
            head_norm=settings.head_norm == "batch",
            zero_init_last=settings.zero_init_last,
            groups=settings.split_bn,
        )
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.curriculum = Curriculum(
            settings.iou_threshold, settings.centre_magnitude, settings.size_magnitude, total_steps
        )
        # `queue_end` is for boxes, whose number varies. Image keys always wrap.
        queued = () if settings.negatives == "batch" else tuple(self.loss_weights)
        if "image" in queued:
            self.image_queue = KeyQueue(settings.image_queue, settings.embedding_dim, "wrap")
        if "box" in queued:
            self.box_queue = KeyQueue(settings.box_queue, settings.embedding_dim, settings.queue_end)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))
        self._step = HostValue()

    @torch.no_grad()
    def begin_step(self) -> None:
        """Advance the curriculum and update the key encoder.

        All parameters are averaged, including BN's affine ones; the key encoder keeps its own BN running statistics.
        """
        self._step.write(self.step, self._step.read(self.step) + 1)
        average = get_ema_multi_avg_fn(self.settings.momentum)  # type: ignore[no-untyped-call]
        average(list(self.key.parameters()), list(self.query.parameters()), None)

    def totals(self, batch: ViewBatch) -> Totals:
        """Count the denominators of the losses for a full batch."""
        pairs = 0
        if "intra" in self.loss_weights:
            pairs = int(different_objects(batch.key_boxes, self.settings.intra_iou).sum())
        return Totals(len(batch), sum(len(boxes) for boxes in batch.key_boxes), pairs)

    def forward(self, batch: ViewBatch, totals: Totals | None = None) -> PartOutput:
        """Compute the loss of a batch, or the share contributed by part of it; the shares add up to the batch loss.

        Leaves the queues and the key encoder unchanged, so that every part sees the same negatives and key encoder.

        Args:
            batch: images and boxes of this process.
            totals: denominators for the full batch; not needed if `batch` is the full batch.

        Raises:
            ValueError: an image has more boxes in one view than in the other.
        """
        totals = totals or self.totals(batch)
        return self.compare(batch.query_images, batch.key_images, self._device_plan(batch), totals)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _device_plan(self, batch: ViewBatch) -> DevicePlan:
        return self.plan(batch).to(batch.key_images.device, next(self.query.parameters()).dtype)

    def plan(self, batch: ViewBatch) -> HostPlan:
        """Draw the permutation and the jitters of a batch or of a part of it, and plan its forward pass on the host.

        Boxes must be on the CPU. Several processes exchange the numbers of their images and boxes here.

        Raises:
            ValueError: an image has more boxes in one view than in the other.
        """
        settings, counts = self.settings, [len(boxes) for boxes in batch.key_boxes]
        jitters = settings.jitters if "box" in self.loss_weights else 0
        # ShuffleBN: the key encoder embeds images of other processes or groups, then sends the embeddings back.
        shuffle = BatchShuffle(len(batch), batch.key_images.device, settings.split_bn > 1, sum(counts), jitters + 1)
        if self.query.box_head is None:
            shuffle.exchange_boxes(torch.zeros(0, 4), [0] * len(batch))
            return HostPlan(shuffle, None)
        boxes = plan_boxes(
            batch.query_boxes,
            batch.key_boxes,
            shuffle,
            jitters=jitters,
            noise=self._noise(),
            view_size=(batch.key_images.shape[-2], batch.key_images.shape[-1]),
            image_size=self.query.image_size,
            intra_iou=settings.intra_iou if "intra" in self.loss_weights else None,
        )
        return HostPlan(shuffle, boxes)

    def compare(self, query_images: Tensor, key_images: Tensor, plan: DevicePlan, totals: Totals) -> PartOutput:
        """Compute the losses of two views whose boxes are planned; everything runs on the device without waiting.

        Args:
            query_images: (B, 3, S, S) float, normalised.
            key_images: the other view of each image.
            plan: `plan(batch)`, on the images' device.
            totals: denominators for the full batch.
        """
        query: Features = self.query(query_images)
        image_keys, candidates = None, None
        with torch.no_grad():
            key: Features = self.key(plan.shuffle.exchange_images(key_images))
            if self.key.image_head is not None:
                image_keys = self.key.embed_images(key.pooled)
            if plan.boxes is not None:
                candidates = self.key.embed_samples(key.pyramid, plan.boxes.candidates, plan.boxes.candidate_counts)
            image_keys, candidates = plan.shuffle.restore(image_keys, candidates)

        output = PartOutput(query_images.new_zeros(()))
        losses: dict[str, Tensor] = {}
        if image_keys is not None:
            losses["image"] = self._image_loss(self.query.embed_images(query.pooled), image_keys, totals, output)
            output.lengths["image"] = plan.shuffle.images
        if plan.boxes is not None and candidates is not None:
            queries = self.query.embed_samples(query.pyramid, plan.boxes.queries, plan.boxes.counts)
            losses |= self._box_losses(queries, candidates, plan.boxes, totals, output)
            output.lengths["box"] = plan.shuffle.boxes
        output.loss = torch.stack([self.loss_weights[name] * loss for name, loss in losses.items()]).sum()
        output.losses = {name: loss.detach() for name, loss in losses.items()}
        return output

    def _image_loss(self, queries: Tensor, keys: Tensor, totals: Totals, output: PartOutput) -> Tensor:
        loss, output.accuracies["image"] = info_nce(
            *(queries, keys, self._negatives("image", keys), self.settings.temperature_image, totals.images),
            self._left_out("image", [1] * len(keys), keys.device),
        )
        output.queries["image"], output.keys["image"] = queries.detach(), keys
        output.rows["image"] = [1] * len(keys)
        return loss

    def _negatives(self, kind: str, keys: Tensor) -> Tensor:
        """Return the (K, D) negatives: this part's keys, then the queue's, as selected by the settings."""
        choice = self.settings.negatives
        if choice == "batch":
            return keys
        past = self.queues[kind].keys
        return past if choice == "queue" else torch.cat([keys, past])

    def _left_out(self, kind: str, counts: Sequence[int], device: torch.device) -> Tensor | None:
        """Mark the `_negatives` from the query's own image, (n, K) bool; None if there cannot be any."""
        if self.settings.negatives == "queue":
            return None
        images = image_of_rows(counts, device)
        same = images.unsqueeze(1) == images
        if self.settings.negatives == "batch":
            return same
        return torch.nn.functional.pad(same, (0, len(self.queues[kind].keys)), value=False)

    def _box_losses(
        self, queries: Tensor, candidates: Tensor, plan: BoxPlan, totals: Totals, output: PartOutput
    ) -> dict[str, Tensor]:
        """Compute the box losses from (N, D) query embeddings and the embeddings of all valid candidates."""
        settings, losses = self.settings, {}
        output.queries["box"], output.rows["box"] = queries.detach(), plan.counts
        rows = candidate_rows(plan.valid)
        if "box" in self.loss_weights:
            with torch.no_grad():
                hardest = hardest_candidates(queries, candidates, plan.valid)
                keys = candidates[rows.gather(1, hardest.unsqueeze(1)).squeeze(1)]
            losses["box"], output.accuracies["box"] = info_nce(
                *(queries, keys, self._negatives("box", keys), settings.temperature_box, totals.boxes),
                self._left_out("box", plan.counts, keys.device),
            )
            output.keys["box"], output.valid = keys, plan.valid_on_host
        if plan.pairs is not None:
            unjittered = candidates[rows[:, -1]]
            losses["intra"] = intra_image_hinge(queries, unjittered, plan.pairs, settings.intra_margin, totals.pairs)
        return losses

    def _noise(self) -> BoxNoise:
        """Return the curriculum's noise of this step, on the CPU."""
        return self.curriculum.noise(torch.tensor(self._step.read(self.step)))

    @torch.no_grad()
    def end_step(self, outputs: Sequence[PartOutput], totals: Totals, monitor: bool = True) -> StepOutput:
        """Add up the parts and enqueue all their keys. Call after the last backward.

        Args:
            outputs: outputs of all parts, in order.
            totals: denominators for the full batch.
            monitor: whether to compute the monitors.
        """
        # Before enqueueing, so that the monitors see the same queue as the losses.
        monitors = self._monitors(outputs, totals) if monitor else {}
        for kind, keys in self._gather_keys(outputs).items():
            queue = self.queues[kind]
            queue.enqueue(keys)
            if monitor:
                monitors[f"{kind}_queue_age"] = queue.age()
                monitors[f"{kind}_queue_filled"] = queue.filled()
        losses = {name: _sum([output.losses[name] for output in outputs]) for name in self.loss_weights}
        return StepOutput(_sum([output.loss.detach() for output in outputs]), losses, monitors)

    def _gather_keys(self, outputs: Sequence[PartOutput]) -> dict[str, Tensor]:
        """Gather the keys of all parts and processes for every queue, in one collective."""
        own = {kind: torch.cat([output.keys[kind] for output in outputs]) for kind in self.queues}
        if not own:
            return {}
        lengths = {
            kind: [sum(each) for each in zip(*(output.lengths[kind] for output in outputs), strict=True)]
            for kind in own
        }
        together = [sum(each) for each in zip(*lengths.values(), strict=True)]
        blocks = torch.split(gather_rows(torch.cat(list(own.values())), together), together)
        parts = [
            torch.split(block, list(sizes))
            for block, sizes in zip(blocks, zip(*lengths.values(), strict=True), strict=True)
        ]
        return {kind: torch.cat(each) for kind, each in zip(own, zip(*parts, strict=True), strict=True)}

    @property
    def queues(self) -> dict[str, KeyQueue]:
        """Return the active queues, by `image` and `box`."""
        queues = {kind: getattr(self, f"{kind}_queue", None) for kind in ("image", "box")}
        return {kind: queue for kind, queue in queues.items() if queue is not None}

    def _monitors(self, outputs: Sequence[PartOutput], totals: Totals) -> dict[str, Tensor]:
        monitors: dict[str, Tensor] = {}
        for kind in outputs[0].queries:
            queries = torch.cat([output.queries[kind] for output in outputs])
            monitors[f"{kind}_embedding_std"] = embedding_std(queries)
            if kind not in self.loss_weights:
                continue
            monitors[f"{kind}_accuracy"] = _sum([output.accuracies[kind] for output in outputs])
            keys = torch.cat([output.keys[kind] for output in outputs])
            images = image_of_rows([count for output in outputs for count in output.rows[kind]], keys.device)
            monitors[f"{kind}_batch_accuracy"] = batch_accuracy(queries, keys, images)
            queue = self.queues.get(kind)
            similarities = similarity_monitors(queries, keys, None if queue is None else queue.keys)
            monitors |= {f"{kind}_{name}": value for name, value in similarities.items()}
        valid = [output.valid for output in outputs if output.valid is not None]
        if valid:
            monitors |= jitter_monitors(torch.cat(valid), self._noise())
        if self.query.box_head is not None:
            monitors["boxes_per_image"] = torch.tensor(totals.boxes / max(totals.images, 1))
        return monitors


def loss_weights(settings: ObjectiveSettings) -> dict[str, float]:
    """Return the weights of the active losses, in the order `image`, `box`, `intra`.

    Raises:
        UserError: every loss has weight 0.
    """
    weights = {"image": settings.weight_image}
    if settings.objective == "ccop":
        weights |= {"box": settings.weight_box, "intra": settings.weight_intra}
    on = {name: weight for name, weight in weights.items() if weight != 0}
    if not on:
        flags = ", ".join(f"--weight-{name}" for name in weights)
        raise UserError(f"every loss of {settings.objective} has weight 0: set {flags} above 0")
    return on


def _sum(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum()
