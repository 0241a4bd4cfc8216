"""The authors' formulation of a step, restated from their description: the reference for numbers and for time.

It loops over images, pools every jitter whether valid or not, embeds each key box twice, calls RoIAlign once per level,
updates the key encoder one parameter at a time, and computes the intra-image loss image by image.
"""

from __future__ import annotations

import torch
from ccop_pretrain.method.batch import ViewBatch
from ccop_pretrain.method.encoder import Encoder
from ccop_pretrain.method.objective import ContrastivePretraining
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize
from torchvision.ops import box_iou, roi_align

LEVELS = ("p2", "p3", "p4", "p5")


class AuthorsStep:
    """Runs steps on the encoders and queues of an objective; `forward` needs `enqueue` after the backward pass."""

    def __init__(self, model: ContrastivePretraining) -> None:
        self.model = model
        self.keys: dict[str, Tensor] = {}

    def forward(self, batch: ViewBatch) -> dict[str, Tensor]:
        """Update the key encoder, and compute the `image`, `box` and `intra` loss of a batch."""
        model, settings = self.model, self.model.settings
        self._update_key_encoder()
        images, queries = self._embed(model.query, batch.query_images, batch.query_boxes)
        counts = [len(boxes) for boxes in batch.key_boxes]
        with torch.no_grad():
            # ShuffleBN draws a permutation in a single process too.
            torch.randperm(len(batch))
            jittered, valid = self._jitter(batch.key_boxes, batch.key_images.shape[-1])
            stages = model.key.network.stages(batch.key_images)
            pyramid = model.key.network.pyramid(stages)
            image_keys = normalize(model.key.image_head(stages["res5"].mean((2, 3))))
            unjittered = self._embed_boxes(model.key, pyramid, batch.key_boxes)
            candidates = self._embed_boxes(model.key, pyramid, [boxes.flatten(0, 1) for boxes in jittered])
            candidates = candidates.view(len(queries), settings.jitters + 1, -1)
            similarity = (queries.detach().unsqueeze(1) * candidates).sum(-1) + 5 * ~valid
            box_keys = candidates[torch.arange(len(queries)), similarity.argmin(1)]
        self.keys = {"image": image_keys, "box": box_keys}
        return {
            "image": self._contrast(images, image_keys, model.image_queue.keys, settings.temperature_image),
            "box": self._contrast(queries, box_keys, model.box_queue.keys, settings.temperature_box),
            "intra": self._hinge(queries.split(counts), unjittered.split(counts), batch.key_boxes),
        }

    @torch.no_grad()
    def enqueue(self) -> None:
        """Write the last keys into the queues; box keys past the end are dropped."""
        for kind, queue in self.model.queues.items():
            start, length = int(queue.pointer), len(queue.keys)
            keys = self.keys[kind][: length - start]
            queue.keys[start : start + len(keys)] = keys
            queue.pointer.fill_((start + len(keys)) % length)

    @torch.no_grad()
    def _update_key_encoder(self) -> None:
        self.model.step += 1
        momentum = self.model.settings.momentum
        for key, query in zip(self.model.key.parameters(), self.model.query.parameters(), strict=True):
            key.data = key.data * momentum + query.data * (1 - momentum)

    def _embed(self, encoder: Encoder, images: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        stages = encoder.network.stages(images)
        pyramid = encoder.network.pyramid(stages)
        return normalize(encoder.image_head(stages["res5"].mean((2, 3)))), self._embed_boxes(encoder, pyramid, boxes)

    def _embed_boxes(self, encoder: Encoder, pyramid: dict[str, Tensor], boxes: list[Tensor]) -> Tensor:
        rows = torch.cat([torch.cat([box.new_full((len(box), 1), i), box], 1) for i, box in enumerate(boxes)])
        sides = ((rows[:, 3] - rows[:, 1]) * (rows[:, 4] - rows[:, 2])).sqrt() * (224 / encoder.image_size)
        level = torch.bucketize(sides, torch.tensor([48.0, 96.0, 192.0]))
        features = pyramid["p2"]
        pooled = features.new_zeros(len(rows), features.shape[1], 7, 7)
        for index, name in enumerate(LEVELS):
            members = (level == index).nonzero().squeeze(1)
            features = pyramid[name]
            found = roi_align(features, rows[members].to(features), 7, 1 / (4 << index), aligned=True)
            pooled = pooled.index_put((members,), found)
        return normalize(encoder.box_head(pooled.flatten(1)))

    def _jitter(self, key_boxes: list[Tensor], size: int) -> tuple[list[Tensor], Tensor]:
        """Return (n_i, J + 1, 4) candidates of each image, the box itself last, and which of all are valid."""
        noise = self.model.curriculum.noise(self.model.step)
        candidates, valid = [], []
        for boxes in key_boxes:
            count, jitters = len(boxes), self.model.settings.jitters
            shift, stretch = torch.rand(count, jitters, 2), torch.rand(count, jitters, 2)
            sides = (boxes[:, 2:] - boxes[:, :2]).unsqueeze(1)
            centres = (boxes[:, 2:] + boxes[:, :2]).unsqueeze(1) / 2 + sides * ((shift - 0.5) * noise.centre_magnitude)
            sides = sides * torch.exp((stretch - 0.5) * noise.size_magnitude)
            jittered = torch.cat([centres - sides / 2, centres + sides / 2], -1).clamp(0, size)
            candidates.append(torch.cat([jittered, boxes.unsqueeze(1)], 1))
            overlaps = [box_iou(box.unsqueeze(0), rows)[0] for box, rows in zip(boxes, candidates[-1], strict=True)]
            mask = torch.stack(overlaps) >= noise.iou_threshold
            mask[:, -1] = True
            valid.append(mask)
        return candidates, torch.cat(valid)

    def _contrast(self, queries: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
        positive = (queries * keys).sum(1, keepdim=True)
        logits = torch.cat([positive, queries @ queue.clone().T], 1) / temperature
        return cross_entropy(logits, torch.zeros(len(queries), dtype=torch.long))

    def _hinge(self, queries: tuple[Tensor, ...], keys: tuple[Tensor, ...], boxes: list[Tensor]) -> Tensor:
        settings, terms = self.model.settings, []
        for query, key, rows in zip(queries, keys, boxes, strict=True):
            similarity = query @ key.T
            hinge = (similarity - similarity.diagonal() + settings.intra_margin).relu()
            terms.append(hinge[box_iou(rows, rows) < settings.intra_iou])
        return torch.cat(terms).mean()
