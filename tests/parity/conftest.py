"""The authors' numbers as fixtures: those of `CCOP_PARITY_DIR`, or of the `data` folder beside this file."""

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
