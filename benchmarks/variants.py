"""Run several versions of the code by turns, each in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from machine import spread

HERE = Path(__file__).resolve().parent
PACKAGES = {"ccop_hub": "ccop_hub", "ccop_pretrain": "pretrain"}


class Variant:
    """A process of a script that answers commands, one line of JSON each.

    Args:
        script: name of the script in this folder.
        arguments: arguments of the script.
    """

    def __init__(self, script: str, arguments: Sequence[str]) -> None:
        command = [sys.executable, str(HERE / script), *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, command: str) -> Any:
        """Send a command and wait for the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{' '.join(map(str, self.process.args))} failed at {command!r}")  # type: ignore[arg-type]
        return json.loads(answer)

    def stop(self) -> str:
        """Let the process end, and return what else it printed."""
        return self.process.communicate("stop\n")[0]


def use_tree(root: Path) -> None:
    """Import the packages from a checkout from now on."""

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
            folder = PACKAGES.get(name)
            if folder is None:
                return None
            place = root.resolve() / folder
            return importlib.util.spec_from_file_location(
                name, place / "__init__.py", submodule_search_locations=[str(place)]
            )

    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Median, minimum, maximum and all values."""
    return {**spread(values), "all": list(values)}


def ratios(times: dict[str, list[float]], pairs: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """Summarise the ratios of times measured in the same round."""
    return {
        f"{over} / {under}": summary([a / b for a, b in zip(times[over], times[under], strict=True)])
        for over, under in pairs
        if times.get(over) and times.get(under)
    }


def random_boxes(count: int, size: int, generator: Any) -> Any:
    """Boxes of all pyramid levels, (count, 4) xyxy in a view of `size` pixels."""
    import torch

    centres = torch.rand(count, 2, generator=generator) * size
    sides = torch.exp(torch.rand(count, 2, generator=generator) * 2.2) * 12 * size / 224 + 12
    return torch.cat([centres - sides / 2, centres + sides / 2], 1).clamp(0, size - 1)
