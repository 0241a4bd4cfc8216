"""What the evaluation tests share."""

import pytest
from ccop_eval.results import Baseline, DataIdentity, Engine, Interval, Result, TensorUse, WeightsIdentity


def make_result(**changes):
    values = {
        "task": "linear",
        "protocol": "linear-sweep",
        "engine": Engine(name="lightning", version="2.6", compiled=None),
        "weights": WeightsIdentity(name="mine", digest="sha256:1", arch="resnet18", facts={"steps": 3}),
        "loaded": "backbone",
        "tensors": TensorUse(used=["backbone.conv1.weight"]),
        "data": DataIdentity(name="toy", digest="sha256:d", images=12),
        "metrics": {"top1": 51.25, "top5": 90.0},
        "seed": 3,
        "per_class": {"accuracy": {"cat": 10.0}},
        "curve": [{"step": 10, "top1": 30.0}],
        "intervals": {"top1": (50.0, 52.0)},
        "paired": {"top1": Interval(difference=1.0, low=-1.0, high=3.0)},
        "baseline": Baseline(
            weights=WeightsIdentity(name="theirs", digest="sha256:2", arch="resnet18"),
            loaded="backbone",
            tensors=TensorUse(),
            metrics={"top1": 50.25},
        ),
    }
    return Result(**{**values, **changes})


@pytest.fixture(name="make_result")
def make_result_fixture():
    """A function that makes a small, complete, paired result; keywords replace fields."""
    return make_result
