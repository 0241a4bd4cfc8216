"""Fixtures with the authors' numbers, from `$CCOP_PARITY_DIR` or the `data` folder next to this file."""

import os
from pathlib import Path
from types import ModuleType

import pytest

from .folder import ParityFolder


@pytest.fixture(scope="session")
def parity() -> ParityFolder:
    return ParityFolder(Path(os.environ.get("CCOP_PARITY_DIR") or Path(__file__).parent / "data").resolve())


@pytest.fixture(scope="session")
def recipe(parity: ParityFolder) -> ModuleType:
    return parity.recipe
