"""Curricular contrastive object-level pre-training (CCOP, arXiv 2111.13651), one step of it.

Two views of each image, and boxes that mark the same objects in both. A query encoder learns from the first view; a key
encoder, its moving average, embeds the second. Three losses are added:

- image: a view is told by its other view from the views of past images (this loss alone is MoCo v2);
- box: an object is told from past objects by a hard positive, the least similar of several valid jitters of its box in
  the other view; the jitter grows over training (the curriculum);
- intra: an object is told from the other objects of its image by a margin.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ccop_hub.errors import UserError

from ..common.distributed import BatchShuffle, gather_rows
from ..settings import ObjectiveSettings
from .curriculum import BoxNoise, Curriculum
from .encoder import Encoder, Features
from .jitter import draw_jitters, key_candidates
from .losses import candidate_rows, different_objects, hardest_candidates, info_nce, intra_image_hinge
from .micro_batches import Step
from .queues import KeyQueue


@dataclass
class Batch:
    """Two views of B images.

    Attributes:
        query_images: (B, 3, H, W) float, RGB, normalised.
        key_images: the other views, alike.
        query_boxes: B times (n_i, 4) float32 xyxy pixels of the query view; n_i may be 0.
        key_boxes: the same objects in the key view, same counts and order.
    """

    query_images: Tensor
    key_images: Tensor
    query_boxes: list[Tensor]
    key_boxes: list[Tensor]

    def split(self, parts: int) -> list[Batch]:
        """Parts of equal size, in order.

        Raises:
            ValueError: the images cannot be dealt out evenly.
        """
        size, rest = divmod(len(self.key_images), parts)
        if rest:
            raise ValueError(f"{len(self.key_images)} images cannot be split into {parts} equal parts")
        slices = [slice(start, start + size) for start in range(0, size * parts, size)]
        return [
            Batch(self.query_images[part], self.key_images[part], self.query_boxes[part], self.key_boxes[part])
            for part in slices
        ]


@dataclass
class ObjectiveOutput:
    """What a step gives.

    Attributes:
        loss: 0-d, the weighted sum of `losses`; the only one to call backward on, unless `forward` did.
        losses: unweighted, of those of `image`, `box` and `intra` that are on; detached.
        monitors: detached 0-d figures of this process's batch that tell how training goes.
    """

    loss: Tensor
    losses: dict[str, Tensor]
    monitors: dict[str, Tensor]


class ContrastivePretraining(nn.Module):
    """Query and key encoder, queues and the step counter; `forward` is one training step's loss.

    Every random draw (permutation, jitters, dropout) comes from torch's global generators. Under
    DistributedDataParallel take `broadcast_buffers=False`: BN statistics are each process's own, the queues agree
    already.

    Args:
        settings: the objective; `mocov2` is the image loss alone, and then boxes may be empty.
        arch: timm name of the backbone.
        total_steps: calls of `forward` in the whole training; the curriculum ends there.
        image_size: side of the views in pixels.

    Attributes:
        query: the encoder that is trained; `query.network` is what pre-training is for.
        key: its moving average, without gradients.
        step: 0-d long, calls of `forward` so far.

    Raises:
        UserError: every loss has weight 0, or the backbone is unknown.
    """

    step: Tensor

    def __init__(self, settings: ObjectiveSettings, arch: str, total_steps: int, image_size: int) -> None:
        super().__init__()
        self.settings = settings
        self.weights = loss_weights(settings)
        self.query = Encoder(
            arch,
            dropout=settings.dropout,
            image_size=image_size,
            hidden_dim=settings.hidden_dim,
            embedding_dim=settings.embedding_dim,
            image_head="image" in self.weights,
            box_head="box" in self.weights or "intra" in self.weights,
        )
        self.key = copy.deepcopy(self.query).requires_grad_(False)
        self.curriculum = Curriculum(
            settings.iou_threshold, settings.centre_magnitude, settings.size_magnitude, total_steps
        )
        # Image keys always wrap, which a queue of a multiple of the batch does anyway: `queue_end` is about boxes.
        if "image" in self.weights:
            self.image_queue = KeyQueue(settings.image_queue, settings.embedding_dim, "wrap")
        if "box" in self.weights:
            self.box_queue = KeyQueue(settings.box_queue, settings.embedding_dim, settings.queue_end)
        self.register_buffer("step", torch.zeros((), dtype=torch.long))

    def forward(
        self, batch: Batch, parts: int = 1, backward: Callable[[Tensor, bool], None] | None = None
    ) -> ObjectiveOutput:
        """Losses of one batch; moves the key encoder, the queues and the step counter on.

        A batch in several parts takes the memory of one. It is one step all the same: its parts see the same key
        encoder and the same negatives, their losses add up to the batch's, and their keys enter the queues together.
        Batch norm alone has the statistics of a part.

        Args:
            batch: of this process.
            parts: micro-batches of equal size that the batch is split into.
            backward: called with each part's share of the loss, 0-d, and whether it is the last one's, before the next
                part begins. The loss that is returned has no gradient then.

        Raises:
            ValueError: the batch cannot be split so, or an image's boxes differ in number between the views.
        """
        self.step += 1
        self._average_key()
        step = self._begin(batch)
        loss = batch.query_images.new_zeros(())
        for index, part in enumerate(batch.split(parts)):
            losses = self._part_losses(part, step)
            share = torch.stack([self.weights[name] * value for name, value in losses.items()]).sum()
            step.add(losses)
            if backward is not None:
                backward(share, index == parts - 1)
                share = share.detach()
            loss = loss + share
        monitors = self._finish(step)
        return ObjectiveOutput(loss, {name: step.sums[name] for name in self.weights}, monitors)

    def _begin(self, batch: Batch) -> Step:
        """What the parts of a step share: totals and negatives."""
        step = Step(len(batch.key_images), sum(len(boxes) for boxes in batch.key_boxes))
        if "image" in self.weights:
            step.image_negatives = self.image_queue.negatives()
        if "box" in self.weights:
            step.box_negatives = self.box_queue.negatives()
        if "intra" in self.weights:
            step.pairs = different_objects(batch.key_boxes, self.settings.intra_iou).sum()
        return step

    @torch.no_grad()
    def _finish(self, step: Step) -> dict[str, Tensor]:
        """Queue the keys of all parts; what the step's monitors say."""
        monitors: dict[str, Tensor] = {}
        if "image" in self.weights:
            self.image_queue.enqueue(gather_rows(torch.cat(step.image_keys)))
            monitors["image_accuracy"] = step.sums["image_accuracy"]
            monitors["image_queue_age"] = self.image_queue.age()
            monitors["image_embedding_std"] = embedding_std(torch.cat(step.image_queries))
        if "box" in self.weights:
            self.box_queue.enqueue(gather_rows(torch.cat(step.box_keys)))
            monitors["box_accuracy"] = step.sums["box_accuracy"]
            monitors["box_queue_age"] = self.box_queue.age()
            monitors |= jitter_monitors(torch.cat(step.valid), self.curriculum.noise(self.step))
        if step.box_queries:
            queries = torch.cat(step.box_queries)
            monitors["box_embedding_std"] = embedding_std(queries)
            monitors["boxes_per_image"] = queries.new_tensor(len(queries) / max(step.images, 1))
        return monitors

    @torch.no_grad()
    def _average_key(self) -> None:
        """Move every parameter of the key, BN's included, towards the query; BN's running statistics stay its own."""
        average = get_ema_multi_avg_fn(self.settings.momentum)  # type: ignore[no-untyped-call]
        average(list(self.key.parameters()), list(self.query.parameters()), None)

    def _part_losses(self, part: Batch, step: Step) -> dict[str, Tensor]:
        query: Features = self.query(part.query_images)
        with torch.no_grad():
            # The key encoder sees images of other processes, and its embeddings are sent home (ShuffleBN).
            shuffle = BatchShuffle(len(part.key_images), part.key_images.device)
            images, one_each = shuffle.shuffle(part.key_images, [1] * len(part.key_images))
            key: Features = self.key(images)

        losses: dict[str, Tensor] = {}
        if self.query.image_head is not None:
            with torch.no_grad():
                image_keys = shuffle.restore(self.key.embed_images(key.pooled), one_each)
            losses["image"] = self._image_loss(self.query.embed_images(query.pooled), image_keys, step)
        if self.query.box_head is not None:
            losses |= self._box_losses(part, query, key, shuffle, step)
        return losses

    def _image_loss(self, queries: Tensor, keys: Tensor, step: Step) -> Tensor:
        loss, accuracy = info_nce(queries, keys, step.image_negatives, self.settings.temperature_image, step.images)
        step.add({"image_accuracy": accuracy})
        step.image_keys.append(keys)
        step.image_queries.append(queries.detach())
        return loss

    def _box_losses(
        self, part: Batch, query: Features, key: Features, shuffle: BatchShuffle, step: Step
    ) -> dict[str, Tensor]:
        settings = self.settings
        counts = [len(boxes) for boxes in part.key_boxes]
        if counts != [len(boxes) for boxes in part.query_boxes]:
            raise ValueError("query and key boxes of an image differ in number")
        queries = self.query.embed_boxes(query.pyramid, part.query_boxes)
        step.box_queries.append(queries.detach())

        with torch.no_grad():
            noise = self.curriculum.noise(self.step)
            draws = draw_jitters(counts, settings.jitters if "box" in self.weights else 0)
            height, width = part.key_images.shape[-2:]
            candidates = key_candidates(torch.cat(part.key_boxes), draws, noise, (height, width))
            valid = candidates.valid
            # Invalid jitters cannot be chosen, so that they are never embedded.
            embeddings = self._embed_key_boxes(key, candidates.boxes[valid], rows_per_image(valid, counts), shuffle)
            rows = candidate_rows(valid)

        losses: dict[str, Tensor] = {}
        if "box" in self.weights:
            with torch.no_grad():
                choice = hardest_candidates(queries, embeddings, valid)
                hard_keys = embeddings[rows.gather(1, choice.unsqueeze(1)).squeeze(1)]
            losses["box"], accuracy = info_nce(
                queries, hard_keys, step.box_negatives, settings.temperature_box, step.boxes
            )
            step.add({"box_accuracy": accuracy})
            step.box_keys.append(hard_keys)
            step.valid.append(valid)
        if "intra" in self.weights:
            unjittered = embeddings[rows[:, -1]]
            losses["intra"] = intra_image_hinge(
                queries, unjittered, part.key_boxes, settings.intra_iou, settings.intra_margin, step.pairs
            )
        return losses

    def _embed_key_boxes(self, key: Features, boxes: Tensor, counts: list[int], shuffle: BatchShuffle) -> Tensor:
        """Embed boxes of own images wherever the images were shuffled to: (M, 4) in, (M, D) out."""
        boxes, counts = shuffle.shuffle(boxes, counts)
        return shuffle.restore(self.key.embed_boxes(key.pyramid, torch.split(boxes, counts)), counts)


def loss_weights(settings: ObjectiveSettings) -> dict[str, float]:
    """Weights of the losses that are on, by name, in the order `image`, `box`, `intra`."""
    weights = {"image": settings.weight_image}
    if settings.objective == "ccop":
        weights |= {"box": settings.weight_box, "intra": settings.weight_intra}
    on = {name: weight for name, weight in weights.items() if weight != 0}
    if not on:
        raise UserError(f"every loss of {settings.objective} has weight 0: give one of {', '.join(weights)} a weight")
    return on


def rows_per_image(valid: Tensor, counts: list[int]) -> list[int]:
    """Valid candidates of each image, from (N, C) flags of N boxes that belong to images by `counts`."""
    rows: list[int] = torch.stack([part.sum() for part in torch.split(valid, counts)]).tolist()
    return rows


def embedding_std(embeddings: Tensor) -> Tensor:
    """Standard deviation over the batch, averaged over components: 0 is a collapse, 1/sqrt(D) a uniform sphere."""
    values = embeddings.detach()
    return values.std(dim=0, correction=0).mean() if len(values) else values.new_zeros(())


def jitter_monitors(valid: Tensor, noise: BoxNoise) -> dict[str, Tensor]:
    """Share of valid jitters, the boxes themselves left out, and the curriculum's values."""
    jitters = valid[:, :-1]
    return {
        "valid_jitters": jitters.sum() / max(jitters.numel(), 1),
        "iou_threshold": noise.iou_threshold,
        "centre_magnitude": noise.centre_magnitude,
        "size_magnitude": noise.size_magnitude,
    }
