import numpy as np
import pytest
import torch
from ccop_eval.region_probe import balanced
from ccop_eval.region_probe.balanced import (
    LogisticRegression,
    Standardiser,
    balanced_votes,
    choose_head,
    class_weights,
    mean_class_accuracy,
)
from sklearn.linear_model import LogisticRegression as Reference

from ccop_hub.errors import UserError

CPU = torch.device("cpu")
PENALTIES = (10.0, 1.0, 0.1, 0.01)
COUNTS = (600, 60, 30, 30)
"""Boxes of each class: the first has five in six."""


def boxes(noise, seed=0, scale=1.0, dimensions=12):
    """Features of unbalanced classes with different means, and their labels."""
    generator = np.random.default_rng(seed)
    labels = generator.permutation(np.repeat(np.arange(len(COUNTS)), COUNTS))
    means = np.random.default_rng(99).standard_normal((len(COUNTS), dimensions))
    features = means[labels] + noise * generator.standard_normal((len(labels), dimensions))
    return (5 + scale * features).astype(np.float32), labels


def probe(train, labels, val, penalties=PENALTIES):
    """Predictions of the chosen head for the rows of `val`."""
    rows = np.arange(len(labels))
    chosen = choose_head(train, labels, len(COUNTS), rows[::2], rows[1::2], penalties, CPU)
    return chosen.head.predict(val)


@pytest.mark.parametrize("penalty", [1.0, 0.01])
def test_the_solver_finds_the_minimum_that_scikit_learn_finds(penalty):
    features, labels = boxes(noise=1.0)
    head = LogisticRegression(features, labels, len(COUNTS), np.arange(len(labels)), CPU).fit(penalty)
    inputs = Standardiser.of(features)(features).astype(np.float64)
    reference = Reference(C=1 / (len(labels) * penalty), class_weight="balanced", tol=1e-10, max_iter=5000)
    reference.fit(inputs, labels)
    np.testing.assert_allclose(head.weight.numpy(), reference.coef_, atol=2e-3)
    assert (head.predict(features) == reference.predict(inputs)).mean() > 0.995


@pytest.mark.parametrize("scale", [1.0, 1e-4])
def test_unbalanced_boxes_are_not_all_given_the_most_frequent_class(scale):
    train, labels = boxes(noise=0.8, scale=scale)
    val, truth = boxes(noise=0.8, seed=1, scale=scale)
    predicted = probe(train, labels, val)
    assert mean_class_accuracy(predicted == truth, truth) > 80
    assert (predicted == 0).mean() < 0.9


def test_shuffled_features_score_at_chance_and_noise_lowers_the_score():
    train, labels = boxes(noise=0.0)
    val, truth = boxes(noise=0.0, seed=1)
    generator = np.random.default_rng(2)
    scores = []
    for noise in (0.5, 2.0, 5.0):
        noisy = [
            (values + noise * generator.standard_normal(values.shape)).astype(np.float32) for values in (train, val)
        ]
        scores.append(mean_class_accuracy(probe(noisy[0], labels, noisy[1]) == truth, truth))
    assert scores[0] > 90
    assert scores[0] > scores[1] + 5 > scores[2] + 10
    shuffled = probe(generator.permutation(train), labels, val)
    assert mean_class_accuracy(shuffled == truth, truth) < 45, "chance is 25"


def test_the_penalty_is_that_of_the_lowest_loss_on_the_hold_out():
    train, labels = boxes(noise=3.0)
    rows = np.arange(len(labels))
    chosen = choose_head(train, labels, len(COUNTS), rows[::2], rows[1::2], (0.0001, 0.1, 10.0), CPU)
    losses = {entry["penalty"]: entry["holdout/loss"] for entry in chosen.tried}
    assert list(losses) == sorted(losses, reverse=True)
    assert losses[chosen.penalty] == min(losses.values())
    assert chosen.penalty == 0.1
    full = LogisticRegression(train, labels, len(COUNTS), rows, CPU).fit(0.1)
    torch.testing.assert_close(chosen.head.weight, full.weight)


def test_standardising_uses_only_the_given_rows_and_drops_constant_features():
    features = np.array([[1.0, 7.0, 0.0], [3.0, 7.0, 0.0], [500.0, 9.0, 1.0]], dtype=np.float32)
    standardised = Standardiser.of(features, np.array([0, 1]))(features)
    np.testing.assert_allclose(standardised[:2], [[-1, 0, 0], [1, 0, 0]])
    assert standardised[2, 1:].tolist() == [0, 0]


def test_features_too_large_to_hold_are_read_in_blocks_with_the_same_result(monkeypatch):
    features, labels = boxes(noise=1.0)
    rows = np.random.default_rng(0).permutation(len(labels))[:500]
    whole = LogisticRegression(features, labels, len(COUNTS), rows, CPU).fit(0.1)
    monkeypatch.setattr(balanced, "MOST_HELD_BYTES", 0)
    monkeypatch.setattr(balanced, "_BLOCK", 37)
    blocks = LogisticRegression(features, labels, len(COUNTS), rows, CPU).fit(0.1)
    torch.testing.assert_close(blocks.weight, whole.weight, atol=1e-3, rtol=1e-3)
    assert (blocks.predict(features) == whole.predict(features)).mean() > 0.99


def test_every_class_that_occurs_has_the_same_total_weight():
    labels = np.array([0, 0, 0, 2])
    assert class_weights(labels, 3, CPU).tolist() == pytest.approx([2 / 3, 0, 2])


def test_votes_are_divided_by_the_size_of_the_class():
    votes = torch.tensor([[6.0, 2.0, 0.0], [9.0, 2.0, 0.0]])
    labels = np.repeat([0, 1], [8, 2])
    assert balanced_votes(votes, labels).tolist() == [[0.75, 1.0, 0.0], [1.125, 1.0, 0.0]]


def test_features_that_are_not_finite_are_one_line():
    features, labels = boxes(noise=1.0)
    features[3] = np.inf
    with pytest.raises(UserError, match="verify"), np.errstate(invalid="ignore"):
        LogisticRegression(features, labels, len(COUNTS), np.arange(len(labels)), CPU).fit(0.1)
