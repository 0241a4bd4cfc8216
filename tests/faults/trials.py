"""One fault tried on one command, and what all kinds of faults need."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import signal
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet
from PIL import Image
from safetensors import safe_open

from .command import Outcome
from .material import Material, Writer
from .warm import Warm

Trials = Iterator["Trial"]


@dataclass(frozen=True)
class Trial:
    """One fault tried on one command.

    Attributes:
        kind: kind of fault, a row of the table.
        fault: description of the fault.
        command: name of the command.
        lost: why the command failed; empty if it passed.
        skipped: why the fault could not be tried; empty if it was.
        code: the command's exit code.
        said: its last line on standard error.
        cpu: its CPU time in seconds.
        memory: its peak resident memory in bytes.
    """

    kind: str
    fault: str
    command: str
    lost: str = ""
    skipped: str = ""
    code: int = 0
    said: str = ""
    cpu: float = 0.0
    memory: int = 0

    def document(self) -> dict[str, object]:
        """The trial as JSON."""
        return asdict(self)


def trial_of(kind: str, fault: str, command: str, outcome: Outcome, lost: str) -> Trial:
    """A trial with the facts of its outcome."""
    # The paths and the machine of this run would differ every time.
    said = outcome.last.replace(os.environ.get("FAULTS_ROOT", "\0"), "...").replace(platform.node(), "this machine")
    said = said[:300]
    return Trial(kind, fault, command, lost, "", outcome.code, said, round(outcome.cpu, 2), outcome.memory)


class Bench:
    """What the kinds of faults share: inputs, two warm processes, and the undisturbed output of each command.

    Args:
        material: the inputs.
        warm: runs a command.
        second: runs another one at the same time.

    Attributes:
        chosen: names of the commands to try; all by default.
    """

    def __init__(self, material: Material, warm: Warm, second: Warm) -> None:
        self.material, self.warm, self.second = material, warm, second
        self.chosen = tuple(material.writers)
        self._whole: dict[str, tuple[object, float]] = {}
        self._measuring = threading.Lock()

    def exchanged(self) -> Bench:
        """The same bench with the two processes exchanged, for another thread."""
        other = Bench(self.material, self.second, self.warm)
        other.chosen, other._whole, other._measuring = self.chosen, self._whole, self._measuring
        return other

    @property
    def writers(self) -> list[Writer]:
        """The chosen commands that can run here."""
        chosen = [self.material.writers[name] for name in self.chosen]
        return [writer for writer in chosen if self.warm.detection or not writer.detection]

    def place(self, name: str, writer: Writer) -> Path:
        """An output path in a new folder of its own."""
        folder = self.material.root / f"{name} {writer.name}"
        folder.mkdir()
        return folder / f"out{writer.suffix}"

    def undisturbed(self, writer: Writer, warm: Warm | None = None) -> tuple[object, float]:
        """A command's output when undisturbed, and its duration in seconds; `warm` runs it, by default the first."""
        with self._measuring:
            if writer.name not in self._whole:
                out = self.place("whole", writer)
                outcome = (warm or self.warm).run(writer.command(out))
                if outcome.code or outcome.flaw():
                    raise RuntimeError(f"{writer.name} failed undisturbed: {outcome.flaw()} {outcome.error}")
                self._whole[writer.name] = (writer.essence(out), outcome.wall)
            return self._whole[writer.name]


@contextlib.contextmanager
def warm_bench(root: Path) -> Iterator[Bench]:
    """Start two warm processes and make the inputs in an empty folder.

    The commands receive SIGINT even if a shell started the harness in the background, and so with SIGINT ignored.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    detection = importlib.util.find_spec("detectron2") is not None
    with Warm(root, detection) as warm, Warm(root, detection) as second:
        material = Material(root, warm.run)
        material.make("scenes", "proposals", "run", "linear")
        yield Bench(material, warm, second)


def leftovers(folder: Path) -> list[str]:
    """Temporary and lock files in a folder, recursively."""
    ours = ("*.partial", "*.lock", "*.unfinished*")
    return sorted({path.name for pattern in ours for path in folder.rglob(pattern)})


def damaged(folder: Path) -> list[str]:
    """Files that cannot be read although they have their final names. Logs and tables that grow are not looked at."""
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if any(part.endswith((".partial", ".lock")) or ".unfinished" in part for part in path.parts):
            continue
        try:
            _read(path)
        except Exception as error:
            found.append(f"{path.relative_to(folder)} ({type(error).__name__}: {error})"[:200])
    return found


def _read(path: Path) -> None:
    if path.suffix in (".png", ".jpg"):
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".json" and path.name != "metrics.json":  # Detectron2 appends to this one
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".safetensors":
        with safe_open(path, "np") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                tensors.get_tensor(name)
    elif path.suffix == ".parquet":
        pyarrow.parquet.read_table(path)
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix in (".pth", ".ckpt"):
        with zipfile.ZipFile(path) as archive:
            if (name := archive.testzip()) is not None:
                raise ValueError(name)
