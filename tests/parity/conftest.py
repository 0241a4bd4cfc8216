"""The authors' numbers as fixtures: `CCOP_PARITY_DIR` or the `data` folder beside this file."""

import importlib.util
import json
import os
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest


class ParityFolder:
    """Reads the files of one folder of numbers; a file that is absent skips the test that asks for it, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.json = cache(self._json)
        self.npz = cache(self._npz)

    def path(self, name: str) -> Path:
        """The file's path, or skip."""
        path = self.folder / name
        if not path.is_file():
            pytest.skip(f"{name} is not in the parity folder {self.folder}")
        return path

    def _json(self, name: str) -> Any:
        return json.loads(self.path(name).read_text(encoding="utf-8"))

    def _npz(self, name: str) -> dict[str, np.ndarray]:
        with np.load(self.path(name)) as arrays:
            return dict(arrays)

    @property
    def recipe(self) -> ModuleType:
        """The folder's own `recipe.py`: seeds, and functions that rebuild the inputs."""
        return load_recipe(self.path("recipe.py"))


@cache
def load_recipe(path: Path) -> ModuleType:
    """Import one folder's `recipe.py` under a name of its own."""
    spec = importlib.util.spec_from_file_location("parity_recipe", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def parity() -> ParityFolder:
    return ParityFolder(Path(os.environ.get("CCOP_PARITY_DIR") or Path(__file__).parent / "data").resolve())


@pytest.fixture(scope="session")
def recipe(parity: ParityFolder) -> ModuleType:
    return parity.recipe
