"""A step waits for the device at most twice, and never to decide a shape or a branch.

On torch's meta device, tensors have a shape but no values, so whatever would have to read one fails.
"""

import importlib.util
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ccop_pretrain.method.batch import ViewBatch
from ccop_pretrain.method.objective import ContrastivePretraining
from ccop_pretrain.settings import ObjectiveSettings, RunSettings
from ccop_pretrain.training.divergence import require_finite
from ccop_pretrain.training.schedule import Schedule
from ccop_pretrain.training.step import PretrainingModule
from ccop_pretrain.views.photometric import PhotometricAugmentation
from torch import Tensor

META = torch.device("meta")
SMALL: dict[str, Any] = {"image_queue": 10, "box_queue": 16, "hidden_dim": 16, "embedding_dim": 8, "jitters": 4}


def load_waits() -> Any:
    path = Path(__file__).parents[3] / "benchmarks" / "waits.py"
    spec = importlib.util.spec_from_file_location("waits", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["waits"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def random_boxes(count: int) -> Tensor:
    corners = torch.rand(count, 2) * 30
    return torch.cat([corners, corners + 10 + torch.rand(count, 2) * 23], 1)


def make_batch(counts: tuple[int, ...] = (3, 0, 2, 5)) -> ViewBatch:
    torch.manual_seed(0)
    boxes = [[random_boxes(count) for count in counts] for _ in range(2)]
    images = torch.randint(0, 256, (2, len(counts), 3, 64, 64), dtype=torch.uint8)
    return ViewBatch(images[0], images[1], boxes[0], boxes[1], list(range(len(counts))))


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        ({}, (3, 0, 2, 5)),
        ({}, (0, 0)),
        ({"objective": "mocov2"}, (3, 0, 2, 5)),
        ({"split_bn": 2, "negatives": "both", "queue_end": "wrap"}, (3, 0, 2, 5)),
        ({"negatives": "batch", "head_norm": "batch", "weight_box": 0.0}, (3, 0, 2, 5)),
    ],
    ids=["paper", "no boxes", "mocov2", "split", "batch"],
)
def test_augmentation_forward_backward_and_update_run_where_no_value_can_be_read(
    changes: dict[str, Any], counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch has no autocast for this device.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    model = ContrastivePretraining(ObjectiveSettings(**{**SMALL, **changes}), "test_resnet", 10, 64)
    for queue in model.queues.values():
        queue.enqueue(torch.zeros(0, 8))
    model.begin_step()
    model.to(META)
    # Known to the host from the step before.
    model._step.write(model.step, 1)
    for queue in model.queues.values():
        queue._next_row.write(queue.pointer, 3)
    augmentation = PhotometricAugmentation(RunSettings(Path(), Path(), proposals=Path())).to(META)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1, momentum=0.9)

    batch = make_batch(counts).to(META)
    assert batch.key_images.device == META
    batch.query_images, batch.key_images = augmentation(batch.query_images), augmentation(batch.key_images)
    model.begin_step()
    totals = model.totals(batch)
    output = model(batch, totals)
    output.loss.backward()
    result = model.end_step([output], totals)
    optimiser.step()
    assert {value.device for value in result.losses.values()} == {META}
    assert all(p.grad is not None and p.grad.device == META for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("objective", ["ccop", "mocov2"])
def test_a_training_step_waits_once_to_check_that_the_losses_are_finite(objective: str) -> None:
    waits = load_waits()
    settings = RunSettings(
        Path(),
        Path(),
        proposals=Path(),
        objective=objective,
        backbone="test_resnet",
        image_size=64,
        batch_size=4,
        **SMALL,
    )
    module, batch = PretrainingModule(settings, Schedule.of(settings, 8)), make_batch()
    module._backward = lambda loss, last: loss.backward()  # type: ignore[method-assign]
    optimiser = module.configure_optimizers()["optimizer"]

    def step(number: int) -> None:
        optimiser.zero_grad()
        output = module.accumulate_gradients(batch, number)
        require_finite(number + 1, {**output.losses, "sum": output.loss}, batch.indices)
        optimiser.step()

    step(0)
    with waits.WaitCounter([*module.parameters(), *module.buffers(), batch.query_images, batch.key_images]) as counter:
        step(1)
    assert dict(counter.waits) == {"_local_scalar_dense": 1}
    assert counter.dispatched > 500


def test_the_whole_objective_compiles_to_one_graph() -> None:
    model, batch = ContrastivePretraining(ObjectiveSettings(**SMALL), "test_resnet", 10, 64), make_batch()
    batch = replace(batch, query_images=batch.query_images / 255, key_images=batch.key_images / 255)
    found = torch._dynamo.explain(model.forward)(batch, model.totals(batch))
    assert found.graph_count == 1
    assert found.break_reasons == []


def test_the_counter_sees_what_waits() -> None:
    waits = load_waits()
    values = torch.arange(4.0)
    with waits.WaitCounter([values]) as counter:
        doubled = values * 2
        assert doubled[doubled > 2].shape == (2,)  # a mask
        (doubled > 2).nonzero()
        doubled[3].item()
        doubled.tolist()
        if doubled.sum() > 0:
            doubled.cpu()
        torch.repeat_interleave(doubled.long())
        torch.arange(3)[torch.tensor([True, False, True])]  # not of the device
    assert counter.waits == {
        "index": 1, "nonzero": 1, "_local_scalar_dense": 2, "tolist": 1, "cpu": 1, "repeat_interleave": 1
    }  # fmt: skip
