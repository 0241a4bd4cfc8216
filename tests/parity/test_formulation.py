"""Losses, gradients and queues are those of the authors' formulation, restated operation by operation, to rounding."""

import copy

import pytest
import torch
from ccop_pretrain.method.batch import ViewBatch
from ccop_pretrain.method.objective import ContrastivePretraining
from ccop_pretrain.settings import ObjectiveSettings
from torch import Tensor
from torch.testing import assert_close

from .formulation import AuthorsStep

SIZE = 96


def random_boxes(count: int) -> Tensor:
    centres, sides = torch.rand(count, 2) * SIZE, torch.exp(torch.rand(count, 2) * 2) * 12
    return torch.cat([centres - sides / 2, centres + sides / 2], 1).clamp(0, SIZE - 1)


def make_batch(seed: int) -> ViewBatch:
    torch.manual_seed(seed)
    images = torch.randn(2, 4, 3, SIZE, SIZE, dtype=torch.float64)
    return ViewBatch(images[0], images[1], *([random_boxes(n) for n in (5, 1, 9, 7)] for _ in range(2)))


def test_three_steps_are_the_same() -> None:
    # The box queue reaches its end, where keys are dropped.
    settings = ObjectiveSettings(dropout=0.0, hidden_dim=32, embedding_dim=16, image_queue=12, box_queue=50)
    torch.manual_seed(0)
    ours = ContrastivePretraining(settings, "test_resnet", 3, SIZE).double()
    theirs = copy.deepcopy(ours)
    authors = AuthorsStep(theirs)
    optimisers = [torch.optim.SGD(each.query.parameters(), lr=1e-3, momentum=0.9) for each in (ours, theirs)]
    for number in range(3):
        batch = make_batch(number)
        torch.manual_seed(number)
        torch.randperm(4)
        ours.begin_step()
        totals = ours.totals(batch)
        output = ours(batch, totals)
        output.loss.backward()
        ours.end_step([output], totals, monitor=False)
        torch.manual_seed(number)
        losses = authors.forward(batch)
        sum(losses.values()).backward()
        authors.enqueue()
        # Later steps amplify the rounding of earlier ones.
        tolerance = (1e-12, 1e-9, 1e-7)[number]
        for name, loss in losses.items():
            assert output.losses[name].item() == pytest.approx(loss.item(), rel=tolerance), name
        for (name, mine), other in zip(ours.query.named_parameters(), theirs.query.parameters(), strict=True):
            largest = other.grad.abs().max().item()
            assert_close(mine.grad, other.grad, rtol=0, atol=tolerance * max(largest, 1), msg=name)
        assert_close(ours.box_queue.keys, theirs.box_queue.keys, rtol=0, atol=tolerance)
        assert_close(ours.image_queue.keys, theirs.image_queue.keys, rtol=0, atol=tolerance)
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()
