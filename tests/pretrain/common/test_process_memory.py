import sys
import time
from multiprocessing import get_context

import numpy as np
import pytest
from ccop_pretrain.common.process_memory import children_memory, memory_in_use, peak_memory, resident_memory

BLOCK = 64 << 20


def hold() -> None:
    block = np.ones(BLOCK, np.uint8)
    time.sleep(60 * int(block[0]))


@pytest.mark.skipif(sys.platform != "linux", reason="only /proc tells the memory of other processes")
def test_children_count_with_what_they_alone_hold() -> None:
    before = children_memory()
    child = get_context("spawn").Process(target=hold)
    child.start()
    try:
        deadline = time.monotonic() + 60
        while children_memory() < before + BLOCK and time.monotonic() < deadline:
            time.sleep(0.05)
        assert before + BLOCK <= children_memory() < before + 16 * BLOCK
        assert memory_in_use() >= peak_memory() + BLOCK
    finally:
        child.kill()
        child.join()
    assert children_memory() <= before


def test_the_peak_stays_when_memory_is_released() -> None:
    block = np.ones(BLOCK, np.uint8)
    peak = peak_memory()
    assert peak >= resident_memory() - (1 << 20) > BLOCK
    del block
    assert peak_memory() >= peak - (1 << 20)  # the kernel counts in batches
