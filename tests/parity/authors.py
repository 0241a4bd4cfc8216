"""Map the authors' networks, inputs and names to ours."""

from collections.abc import Iterable
from types import ModuleType
from typing import Any

import torch
from ccop_pretrain.method.batch import ViewBatch
from ccop_pretrain.method.encoder import Encoder
from ccop_pretrain.method.objective import ContrastivePretraining
from ccop_pretrain.settings import ObjectiveSettings
from torch import Tensor, nn

from ccop_hub.formats.names import from_canonical
from ccop_hub.normalization import PIXEL_MEAN, PIXEL_STD

TOTAL_STEPS = 100
LOSSES = {"img_loss": "image", "roi_loss": "box", "inImg_loss": "intra"}
LAYERS = {"mlp.linear_1.0": "hidden", "mlp.last_linear": "output"}


def tensors(encoder: Encoder) -> dict[str, Tensor]:
    """An encoder's live parameters and buffers, keyed by the authors' names."""
    network = from_canonical(encoder.network.state_dict(keep_vars=True), "detectron2")
    named = {name.removeprefix("backbone."): tensor for name, tensor in network.items()}
    for theirs, head in (("img_neck", encoder.image_head), ("roi_neck", encoder.box_head)):
        for path, layer in LAYERS.items():
            for kind in ("weight", "bias"):
                named[f"{theirs}.{path}.{kind}"] = getattr(getattr(head, layer), kind)
    return named


def parameters(encoder: Encoder) -> dict[str, nn.Parameter]:
    return {name: tensor for name, tensor in tensors(encoder).items() if isinstance(tensor, nn.Parameter)}


def build(recipe: ModuleType, dtype: torch.dtype = torch.float64) -> ContrastivePretraining:
    settings = ObjectiveSettings(dropout=0, jitters=recipe.J, image_queue=recipe.IMG_Q, box_queue=recipe.ROI_Q)
    return ContrastivePretraining(settings, "resnet50", TOTAL_STEPS, recipe.SIZE).to(dtype)


@torch.no_grad()
def prepare(
    model: ContrastivePretraining,
    recipe: ModuleType,
    shapes: dict[str, list[int]],
    step: int,
    key_seed: int | None = None,
    image_pointer: int = 0,
    box_pointer: int = 0,
) -> ContrastivePretraining:
    """Load a case's initial state into a model."""
    seeds = {"query": recipe.SEED["weights_q"], "key": key_seed or recipe.SEED["weights_k"]}
    for side, seed in seeds.items():
        encoder = getattr(model, side)
        weights, ours = recipe.weights(shapes, seed), parameters(encoder)
        assert weights.keys() == ours.keys()
        for name, value in weights.items():
            ours[name].copy_(value)
        for module in encoder.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.reset_running_stats()
    image_queue, box_queue = recipe.queues()
    model.image_queue.keys.copy_(image_queue.T)
    model.box_queue.keys.copy_(box_queue.T)
    model.image_queue.pointer.fill_(image_pointer)
    model.box_queue.pointer.fill_(box_pointer)
    model.step.fill_(step)
    model.zero_grad()
    return model.train()


def normalise(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Normalise images in [0, 1); as in the authors' float64 runs, the constants are float32."""
    mean, std = (torch.tensor(values).view(3, 1, 1).to(dtype) for values in (PIXEL_MEAN, PIXEL_STD))
    return (images.to(dtype) * 255 - mean) / std


def split_boxes(boxes: Any, counts: Iterable[int]) -> list[Tensor]:
    """Unpad each image's boxes."""
    return [torch.from_numpy(rows[:count]) for rows, count in zip(boxes, counts, strict=True)]


def make_batch(
    recipe: ModuleType, boxes: dict[str, Any], dtype: torch.dtype = torch.float64, images: slice = slice(None)
) -> ViewBatch:
    """The batch of `boxes.npz`, or of some of its images; boxes stay float32."""
    pixels = normalise(recipe.images()[images], dtype)
    query, key = (split_boxes(boxes[f"boxes_{side}"][images], boxes["boxes_num"][images]) for side in "qk")
    return ViewBatch(pixels[:, 0], pixels[:, 1], query, key)


def seed_step(seed: int, images: int) -> None:
    """Advance the global generator to where the authors' code draws its first jitter in a single process."""
    torch.manual_seed(seed)
    torch.randperm(images)
