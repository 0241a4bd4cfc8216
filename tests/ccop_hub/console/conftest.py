from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest

from ccop_hub.console import Command, run_program
from ccop_hub.validation import Interval, PositiveInt, Validated


@dataclass(frozen=True)
class Painting(Validated):
    """Draw pictures.

    Args:
        files: pictures to read.
        out: folder to write.
        longest_side: in pixels.
        copies: of each picture; as many as there is room for by default.
        gloss: share of light that is reflected.
        finish: of the surface.
        dry_run: write nothing.
        size: width and height, in pixels.
        shades: of grey.
        layers: folders to draw on top.
    """

    TOPIC = "Drawing"

    files: list[Path]
    out: Path
    longest_side: PositiveInt = 64
    copies: int | None = None
    gloss: Annotated[float, Interval(ge=0, le=1)] = 0.5
    finish: Literal["matt", "glossy"] = "matt"
    dry_run: bool = False
    size: tuple[PositiveInt, PositiveInt] | None = None
    shades: list[int] = field(default_factory=list)
    layers: list[Path] | None = None


@dataclass(frozen=True)
class Lookup(Validated):
    """Look something up.

    Args:
        name: what to look up.
    """

    name: str = "everything"


class Program:
    """A console program whose commands remember what they were called with."""

    def __init__(self, folder: Path) -> None:
        self.called: list[object] = []
        (folder / "large.yaml").write_text("longest_side: 1333\ngloss: 0.75\n")
        self.commands = [
            Command(
                "draw",
                "Draw pictures.",
                Painting,
                self._run,
                ("files",),
                common=("longest_side", "dry_run"),
                named_settings=folder,
            ),
            Command(
                "look",
                "Look something up.",
                Lookup,
                self._run,
                ("name",),
                show=lambda outcome, settings: print(f"table of {settings.name}"),
                document=lambda outcome, settings: {"name": settings.name},
            ),
        ]

    def _run(self, settings: object) -> None:
        self.called.append(settings)
        if isinstance(settings, Lookup):
            print("looking")

    def __call__(self, *argv: str) -> int:
        return run_program("painter", "Paints.", self.commands, argv)


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path)
