"""Seeds derived from what a draw belongs to, so that no draw depends on the draws before it."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derive_seed(purpose: str, *parts: int) -> int:
    """A 63-bit seed that depends on the purpose and on every part, and on nothing else.

    Args:
        purpose: what is drawn ("views", "step", ...): equal parts give unrelated draws for two purposes.
        parts: non-negative integers, such as (seed, epoch, image index) or (seed, step, rank).
    """
    entropy = [zlib.crc32(purpose.encode()), *parts]
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0] >> 1)


@contextmanager
def seeded_cpu(seed: int) -> Iterator[None]:
    """Inside, torch's global CPU generator draws from `seed`; on leaving, it goes on where it was.

    Generators of GPUs are left alone.
    """
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
