import operator
import os
from collections.abc import Iterator

import pytest
from ccop_pretrain.parallel import available_cores, ordered_map

from ccop_hub.errors import UserError


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_the_items_order(workers: int) -> None:
    assert list(ordered_map(operator.neg, range(200), workers)) == [-item for item in range(200)]


def test_items_are_read_as_results_are_taken() -> None:
    taken = 0

    def items() -> Iterator[int]:
        nonlocal taken
        while taken < 100_000:
            taken += 1
            yield taken

    results = ordered_map(operator.neg, items(), workers=2)
    assert next(results) == -1
    assert taken < 100
    results.close()  # type: ignore[attr-defined]


def test_dead_worker_is_a_plain_error() -> None:
    with pytest.raises(UserError, match="worker process died"):
        list(ordered_map(os._exit, [1, 1], workers=2))


def test_available_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
