import numpy as np
import pytest
from ccop_eval.results.intervals import bootstrap, mean_statistic


def test_interval_of_a_mean_is_the_normal_one_for_many_images():
    hits = np.random.default_rng(0).random(2000) < 0.3
    (low, high) = bootstrap(2000, mean_statistic({"top1": hits}), None, seed=0).own["top1"]
    mean, error = hits.mean(), np.sqrt(hits.mean() * (1 - hits.mean()) / 2000)
    assert low == pytest.approx(100 * (mean - 1.96 * error), abs=0.25)
    assert high == pytest.approx(100 * (mean + 1.96 * error), abs=0.25)


def test_pairing_narrows_the_interval_of_a_difference():
    generator = np.random.default_rng(1)
    other = generator.random(500) < 0.5
    own = other | (generator.random(500) < 0.05)
    result = bootstrap(500, mean_statistic({"top1": own}), mean_statistic({"top1": other}), seed=0)
    paired = result.paired["top1"]
    assert paired.difference == pytest.approx(100 * (own.mean() - other.mean()))
    assert 0 < paired.low < paired.difference < paired.high
    single = result.own["top1"]
    assert paired.high - paired.low < 0.5 * (single[1] - single[0])


def test_same_numbers_as_a_slow_bootstrap():
    own, other = np.array([1, 0, 1, 1, 0]), np.array([1, 1, 0, 1, 0])
    generator = np.random.default_rng(7)
    slow = []
    for _ in range(50):
        drawn = generator.integers(0, 5, 5)
        slow.append(100 * (own[drawn].mean() - other[drawn].mean()))
    result = bootstrap(5, mean_statistic({"a": own}), mean_statistic({"a": other}), seed=7, resamples=50).paired["a"]
    assert (result.low, result.high) == pytest.approx(tuple(np.quantile(slow, [0.025, 0.975])))


def test_undefined_metric_has_no_interval():
    def undefined(counts):
        return {"empty": float("nan"), "all": 1.0}

    result = bootstrap(3, undefined, undefined, seed=0, resamples=5)
    assert set(result.own) == {"all"}
    assert set(result.paired) == {"all"}


def test_limits_equal_scipys():
    from scipy.stats import bootstrap as scipy_bootstrap

    generator = np.random.default_rng(2)
    own, other = generator.random((2, 60)) < 0.5
    ours = bootstrap(60, mean_statistic({"a": own}), mean_statistic({"a": other}), seed=3, resamples=200).paired["a"]
    theirs = scipy_bootstrap(
        (own, other),
        lambda one, two, axis: 100 * (one.mean(axis) - two.mean(axis)),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=200,
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
