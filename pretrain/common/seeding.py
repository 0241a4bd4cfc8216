"""Seeds derived from the purpose of a draw, so that no draw depends on earlier ones."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(purpose: str, *parts: int) -> int:
    """Derive a 63-bit seed from a purpose and integers.

    Args:
        purpose: purpose of the draw ("views", "step", ...); seeds for different purposes are unrelated.
        parts: non-negative integers, such as (seed, epoch, image index) or (seed, step, rank).
    """
    entropy = [zlib.crc32(purpose.encode()), *parts]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def seeded_cpu(seed: int) -> Iterator[None]:
    """Seed torch's global CPU generator within the block, and restore its state afterwards.

    GPU generators are not affected.
    """
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
