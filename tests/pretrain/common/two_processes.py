"""One of two gloo processes; arguments: RENDEZVOUS RANK OUT. Saves the return value of every check by name."""

import sys
from typing import Any

import torch
import torch.distributed as dist
from ccop_pretrain.common.distributed import BatchShuffle, gather_rows, rank, world_size
from ccop_pretrain.method.batch import ViewBatch
from ccop_pretrain.method.objective import ContrastivePretraining
from ccop_pretrain.settings import ObjectiveSettings
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

CPU = torch.device("cpu")
SIZE = 64


def gathering() -> dict[str, Any]:
    """Rank 0 has three rows, rank 1 has one, then none."""
    rows = torch.arange(6.0).view(3, 2) if rank() == 0 else torch.tensor([[10.0, 11]])
    return {
        "rank": rank(),
        "world": world_size(),
        "rows": gather_rows(rows),
        "one_side": gather_rows(rows if rank() == 0 else rows[:0]),
        "nothing": gather_rows(rows[:0]),
    }


def shuffling() -> dict[str, Any]:
    """Unequal batches, with a varying number of rows per image, possibly none."""
    counts = [2, 0, 1] if rank() == 0 else [3, 1]
    torch.manual_seed(rank())
    shuffle = BatchShuffle(len(counts), CPU, boxes=2, copies=2)
    drawn = torch.rand(1)
    owner = torch.arange(len(counts)) + 10 * rank()
    rows = owner.repeat_interleave(torch.tensor(counts))
    boxes, moved_counts = shuffle.exchange_boxes(rows.unsqueeze(1).expand(-1, 4).float(), counts)
    moved = boxes[:, 0].long()
    images = shuffle.exchange_images(owner)
    home_images, home_rows = shuffle.restore(images.unsqueeze(1), moved.unsqueeze(1))
    alone, _ = shuffle.restore(images.unsqueeze(1), None)
    return {
        "images": images,
        "rows": moved,
        "counts": moved_counts,
        "owner": owner,
        "home_images": home_images[:, 0],
        "home_images_alone": alone[:, 0],
        "own_rows": rows,
        "home_rows": home_rows[:, 0],
        "drawn": drawn,
    }


def make_batch(counts: list[int]) -> ViewBatch:
    generator = torch.Generator().manual_seed(100 + rank())

    def boxes(count: int) -> Tensor:
        corner = torch.rand(count, 2, generator=generator) * torch.tensor([3, 40])
        corner[:, 0] += 20 * torch.arange(count)
        return torch.cat([corner, corner + 15], 1)

    images = torch.randn(2, len(counts), 3, SIZE, SIZE, generator=generator)
    return ViewBatch(images[0], images[1], [boxes(count) for count in counts], [boxes(count) for count in counts])


def training(settings: ObjectiveSettings, counts: tuple[list[int], list[int]]) -> dict[str, Any]:
    """Two steps under DistributedDataParallel without `find_unused_parameters`, as in the trainer."""
    torch.manual_seed(0)
    model = ContrastivePretraining(settings, "test_resnet", 10, SIZE)
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    optimiser = torch.optim.SGD((p for p in model.query.parameters() if p.requires_grad), lr=0.1)
    local: dict[str, Tensor] = {}
    for name, parameter in model.query.named_parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda grad, name=name: local.update({name: grad.clone()}))
    record = []
    for step in range(2):
        torch.manual_seed(1000 * step + rank())
        optimiser.zero_grad()
        batch = make_batch(counts[rank()])
        model.begin_step()
        output = wrapped(batch)
        output.loss.backward()
        model.end_step([output], model.totals(batch))
        record.append(
            {
                "losses": {name: value.item() for name, value in output.losses.items()},
                "local": dict(local),
                "averaged": {name: p.grad.clone() for name, p in model.query.named_parameters() if p.requires_grad},
            }
        )
        optimiser.step()
    return {
        "steps": record,
        "state": model.state_dict(),
        "query": dict(model.query.named_parameters()),
        "key": dict(model.key.named_parameters()),
    }


def double_batch() -> dict[str, Any]:
    """A step that does not depend on how the batch is distributed: fixed statistics, equal counts, no noise."""
    torch.manual_seed(0)
    model = ContrastivePretraining(ObjectiveSettings(**{**SMALL, "jitters": 0}), "test_resnet", 10, SIZE).eval()
    start = {name: value.clone() for name, value in model.state_dict().items()}
    wrapped = DistributedDataParallel(model, broadcast_buffers=False)
    batch = make_batch([2, 3])
    model.begin_step()
    output = wrapped(batch)
    output.loss.backward()
    model.end_step([output], model.totals(batch))
    return {
        "start": start,
        "batch": vars(batch),
        "losses": {name: value.item() for name, value in output.losses.items()},
        "gradients": {name: p.grad for name, p in model.query.named_parameters()},
        "state": model.state_dict(),
    }


SMALL = {"image_queue": 10, "box_queue": 16, "hidden_dim": 16, "embedding_dim": 8, "jitters": 4}
CHECKS = {
    "gathering": gathering,
    "shuffling": shuffling,
    "one_rank_without_boxes": lambda: training(ObjectiveSettings(**SMALL), ([2, 3], [0, 0])),
    "unequal_batches": lambda: training(ObjectiveSettings(**SMALL), ([1, 0, 2], [3, 1])),
    "double_batch": double_batch,
    "mocov2": lambda: training(ObjectiveSettings(objective="mocov2", **SMALL), ([2, 3], [0, 0])),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=int(sys.argv[2]), world_size=2)
    torch.save({name: check() for name, check in CHECKS.items()}, sys.argv[3])
    dist.destroy_process_group()
