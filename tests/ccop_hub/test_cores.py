"""A process never counts more cores than the machine has."""

import os

from ccop_hub.cores import available_cores


def test_available_cores() -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
