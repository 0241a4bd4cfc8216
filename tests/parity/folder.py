"""Read a folder of the authors' numbers."""

import importlib.util
import json
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest


class ParityFolder:
    """Skips a test, naming the file, if a file that it needs is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[str, Any] = {}

    def path(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            pytest.skip(f"{name} is not in the parity folder {self.folder}")
        return path

    def json(self, name: str) -> Any:
        if name not in self._read:
            self._read[name] = json.loads(self.path(name).read_text(encoding="utf-8"))
        return self._read[name]

    def npz(self, name: str) -> dict[str, np.ndarray]:
        if name not in self._read:
            with np.load(self.path(name)) as arrays:
                self._read[name] = dict(arrays)
        return self._read[name]

    @cached_property
    def recipe(self) -> ModuleType:
        """The folder's `recipe.py`: seeds, and functions that rebuild the inputs."""
        spec = importlib.util.spec_from_file_location("parity_recipe", self.path("recipe.py"))
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
