"""What `docs/detection.md` tells people to type is what the programs take."""

import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from ccop_eval.cli import COMMANDS
from ccop_eval.detection.config import protocol_ids

from ccop_hub.console import run_program

PAGE = (Path(__file__).parents[2] / "docs" / "detection.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
TYPED = [line for block in BLOCKS for line in block.splitlines()] + re.findall(r"`(ccop-eval [^`\s]+ [^`]+)`", PAGE)
COMMAND_LINES = [line for line in TYPED if line.startswith("ccop-eval ")]
ELSEWHERE = {"--logdir"}
"""Flags of other programs that the page names."""


def test_the_page_has_a_command_for_every_kind_of_data() -> None:
    assert {"--data coco", "--data voc", "--data cityscapes"} <= set(re.findall(r"--data \w+", " ".join(COMMAND_LINES)))


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_a_command_of_the_page_is_taken(line: str) -> None:
    taken: list[Any] = []
    commands = [dataclasses.replace(command, run=taken.append) for command in COMMANDS]
    assert run_program("ccop-eval", "", commands, shlex.split(line)[1:]) == 0
    (settings,) = taken
    assert getattr(settings, "protocol", None) in (None, *protocol_ids())


def test_every_flag_of_the_page_exists() -> None:
    fields = {field.name for command in COMMANDS for field in dataclasses.fields(command.settings)}
    script = (Path(__file__).parents[2] / "benchmarks" / "detection_gpu.py").read_text(encoding="utf-8")
    known = {"--" + name.replace("_", "-") for name in fields} | set(re.findall(r"\"(--[a-z-]+)\"", script)) | ELSEWHERE
    assert set(re.findall(r"--[a-z][a-z-]+", PAGE)) <= known


def test_every_protocol_is_described() -> None:
    shortened = PAGE.replace("-1x`, `-2x`", "-1x`")
    for protocol in protocol_ids():
        assert f"`{protocol.replace('-2x', '-1x')}`" in shortened, protocol
