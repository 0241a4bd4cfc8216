import numpy as np
import pytest
import torch
from ccop_eval.frozen.heads import HeadGrid, HeadSpec, head_losses, make_optimizer, set_rates, top_hits


def test_every_head_trains_as_it_would_alone():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn(12, 5, generator=generator), torch.arange(12) % 3
    specs = [HeadSpec(0.1, 0.1, False), HeadSpec(1.0, 1.0, False), HeadSpec(0.1, 0.1, True)]
    grid = HeadGrid(5, 3, specs, seed=0)
    alone = [torch.nn.Linear(5, 3) for _ in specs]
    for head, own in zip(alone, grid.heads, strict=True):
        head.load_state_dict(own.state_dict())
    optimizer = make_optimizer(grid.parameter_groups())
    for step in range(3):
        set_rates(optimizer, float(step), 3, None)
        optimizer.zero_grad()
        head_losses(grid(features), labels).sum().backward()
        optimizer.step()
    normalised = (features - features.mean(0)) / (features.var(0, unbiased=False) + 1e-5).sqrt()
    for spec, head, own in zip(specs, alone, grid.heads, strict=True):
        single = torch.optim.SGD(head.parameters(), lr=spec.rate, momentum=0.9)
        for step in range(3):
            single.param_groups[0]["lr"] = spec.rate * 0.5 * (1 + np.cos(np.pi * step / 3))
            single.zero_grad()
            torch.nn.functional.cross_entropy(head(normalised if spec.normalised else features), labels).backward()
            single.step()
        torch.testing.assert_close(own.weight, head.weight)
        torch.testing.assert_close(own.bias, head.bias)


def test_rates_of_mocos_schedule():
    grid = HeadGrid(2, 2, [HeadSpec(30.0, 30.0, False)], seed=0)
    optimizer = make_optimizer(grid.parameter_groups())
    rates = []
    for epoch in (0, 59, 60, 79, 80, 99):
        set_rates(optimizer, epoch, 100, (60, 80))
        rates.append(optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([30, 30, 3, 3, 0.3, 0.3])


def test_top_hits_equal_a_slow_count():
    generator = torch.Generator().manual_seed(1)
    logits, labels = torch.randn(2, 40, 7, generator=generator), torch.arange(40) % 7
    for k in (1, 5):
        slow = [
            [
                sum(value > row[label] for value in row.tolist()) < k
                for row, label in zip(head, labels.tolist(), strict=True)
            ]
            for head in logits
        ]
        assert top_hits(logits, labels, k).tolist() == slow
