import itertools
from typing import Any

import numpy as np
import pytest
from ccop_eval.detection.engine import load_engine

load_engine()

from ccop_eval.detection import data_order  # noqa: E402 - Detectron2 has to be prepared first
from ccop_eval.detection.data_order import GroupedBatches, NumberedSamples, ResumableLoader  # noqa: E402

RECORDS = [{"width": 60 + 20 * (number % 3), "height": 80, "number": number} for number in range(13)]
"""Wide, square and tall images."""


def _wide() -> list[bool]:
    return [record["width"] > record["height"] for record in RECORDS]


def _draw(record: dict[str, Any]) -> dict[str, Any]:
    """A mapper that augments from NumPy's global random state, like Detectron2's."""
    return {"number": record["number"], "drawn": float(np.random.uniform())}


def _loader(seed: int = 0, workers: int = 0) -> ResumableLoader:
    return ResumableLoader(NumberedSamples(RECORDS, _draw, seed), GroupedBatches(_wide(), 2, seed), workers)


def _take(loader: ResumableLoader, batches: int) -> list[list[dict[str, Any]]]:
    return list(itertools.islice(iter(loader), batches))


@pytest.mark.parametrize(("rank", "processes"), [(0, 1), (0, 2), (1, 2)])
def test_batches_are_those_of_detectron2s_own_grouping(
    monkeypatch: pytest.MonkeyPatch, rank: int, processes: int
) -> None:
    from detectron2.data.common import AspectRatioGroupedDataset
    from detectron2.data.samplers import TrainingSampler
    from detectron2.utils import comm

    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: processes)
    order = (RECORDS[index] for index in TrainingSampler(len(RECORDS), seed=5))
    theirs = itertools.islice(AspectRatioGroupedDataset(order, 3), 20)
    ours = itertools.islice(GroupedBatches(_wide(), 3, seed=5), 20)
    for one, other in zip(ours, theirs, strict=True):
        assert [index for _, index in one] == [record["number"] for record in other]


def test_processes_have_samples_of_different_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data_order.comm, "get_world_size", lambda: 2)
    numbers = []
    for rank in range(2):
        monkeypatch.setattr(data_order.comm, "get_rank", lambda rank=rank: rank)
        batches = itertools.islice(GroupedBatches(_wide(), 2, seed=0, grouped=False), 6)
        numbers += [number for batch in batches for number, _ in batch]
    assert sorted(numbers) == list(range(24))


def test_order_and_augmentation_follow_the_seed_alone() -> None:
    first = _take(_loader(), 12)
    np.random.seed(99)
    assert _take(_loader(), 12) == first
    assert _take(_loader(workers=2), 12) == first
    assert _take(_loader(seed=1), 12) != first
    drawn = [sample["drawn"] for batch in first for sample in batch]
    assert len(set(drawn)) == len(drawn), "an image that comes again is augmented anew"


def test_a_loader_goes_on_where_another_was_stopped() -> None:
    whole = _take(_loader(), 12)
    rest = _loader()
    started = iter(rest)
    rest.first = 5
    assert list(itertools.islice(started, 7)) == whole[5:]


def test_the_global_generators_are_left_alone() -> None:
    import torch

    before, torch_before = np.random.get_state()[1].copy(), torch.get_rng_state()
    _take(_loader(), 3)
    assert np.array_equal(np.random.get_state()[1], before)
    assert torch.equal(torch.get_rng_state(), torch_before)
