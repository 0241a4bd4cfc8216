import pytest
import torch
from ccop_pretrain.method.queues import KeyQueue
from torch import Tensor
from torch.testing import assert_close


def numbered(start: int, count: int) -> Tensor:
    return torch.arange(start, start + count, dtype=torch.float32).unsqueeze(1).expand(count, 2)


def filled(length: int, end: str, batches: list[int]) -> KeyQueue:
    queue, start = KeyQueue(length, 2, end), 1
    queue.keys.zero_()
    for count in batches:
        queue.enqueue(numbered(start, count))
        start += count
    return queue


def test_it_starts_with_random_unit_vectors() -> None:
    queue = KeyQueue(50, 8, "drop")
    assert_close(queue.keys.norm(dim=1), torch.ones(50))
    assert len(queue.keys.unique(dim=0)) == 50
    assert int(queue.pointer) == 0


@pytest.mark.parametrize(
    ("end", "batches", "expected", "pointer"),
    [
        ("wrap", [3, 3], [6, 2, 3, 4, 5], 1),
        ("drop", [3, 3], [1, 2, 3, 4, 5], 0),
        ("wrap", [3, 2], [1, 2, 3, 4, 5], 0),
        ("drop", [3, 2], [1, 2, 3, 4, 5], 0),
        ("drop", [3, 3, 2], [7, 8, 3, 4, 5], 2),
        ("wrap", [2, 12], [11, 12, 13, 14, 10], 4),
        ("drop", [2, 12], [1, 2, 3, 4, 5], 0),
        ("wrap", [0, 2, 0], [1, 2, 0, 0, 0], 2),
        ("drop", [0, 2, 0], [1, 2, 0, 0, 0], 2),
    ],
)
def test_the_ring(end: str, batches: list[int], expected: list[int], pointer: int) -> None:
    queue = filled(5, end, batches)
    assert queue.keys[:, 0].tolist() == expected
    assert int(queue.pointer) == pointer


def test_negatives_do_not_change_when_the_queue_moves_on() -> None:
    queue = filled(5, "wrap", [5])
    before = queue.keys.clone()
    queue.enqueue(numbered(9, 1))
    assert before[:, 0].tolist() == [1, 2, 3, 4, 5]
    assert queue.keys[0, 0] == 9


def test_state_dict_round_trip() -> None:
    queue, other = filled(5, "wrap", [3, 4]), KeyQueue(5, 2, "wrap")
    other.load_state_dict(queue.state_dict())
    for each in (queue, other):
        each.enqueue(numbered(8, 2))
    assert_close(other.keys, queue.keys, rtol=0, atol=0)
    assert int(other.pointer) == int(queue.pointer) == 4


def test_an_empty_queue_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        KeyQueue(0, 2, "drop")


def test_the_age_of_keys_counts_calls() -> None:
    queue = KeyQueue(4, 2, "wrap")
    assert queue.age() == 0
    queue.enqueue(torch.ones(2, 2))
    assert queue.age() == 0.5  # two random initial keys, one call old
    queue.enqueue(torch.ones(1, 2))
    assert queue.age() == (1 + 1 + 0 + 2) / 4
    queue.enqueue(torch.ones(0, 2))
    assert queue.age() == (2 + 2 + 1 + 3) / 4
