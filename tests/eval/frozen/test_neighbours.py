import math

import numpy as np
import torch
from ccop_eval.frozen import neighbours


def slow_votes(bank, labels, query, k, temperature, classes):
    """Reference: sort all similarities; each neighbour's vote weighs exp(similarity / T)."""
    similarity = [
        (sum(a * b for a, b in zip(row, query, strict=True)) / math.hypot(*row) / math.hypot(*query), label)
        for row, label in zip(bank, labels, strict=True)
    ]
    votes = [0.0] * classes
    for value, label in sorted(similarity, reverse=True)[:k]:
        votes[label] += math.exp(value / temperature)
    return votes


def test_votes_equal_a_slow_recomputation(monkeypatch):
    monkeypatch.setattr(neighbours, "BANK_BLOCK", 7)
    monkeypatch.setattr(neighbours, "QUERY_BLOCK", 4)
    generator = np.random.default_rng(0)
    bank, queries = generator.normal(size=(40, 3)).astype(np.float32), generator.normal(size=(9, 3)).astype(np.float32)
    labels = generator.integers(0, 5, 40).tolist()
    truth = generator.integers(0, 5, 9).tolist()
    similarity, index = neighbours.nearest_neighbours(bank, queries, 20, torch.device("cpu"))
    for k in (1, 10, 20):
        votes = neighbours.class_votes(similarity, index, labels, k, 0.07)
        ranks = neighbours.true_class_rank(similarity, index, labels, truth, k, 0.07)
        for row, query in enumerate(queries.tolist()):
            slow = slow_votes(bank.tolist(), labels, query, k, 0.07, 5)
            np.testing.assert_allclose(votes[row] / votes[row].sum(), np.array(slow) / sum(slow), rtol=1e-4)
            own = slow[truth[row]]
            assert int(ranks[row]) == (sum(value > own for value in slow) if own > 0 else 5)
