"""`docs/detection.md` covers every data set layout and protocol."""

import re
from pathlib import Path

from ccop_eval.detection.config import protocol_ids

PAGE = (Path(__file__).parents[2] / "docs" / "detection.md").read_text(encoding="utf-8")


def test_the_page_has_a_command_for_every_kind_of_data() -> None:
    assert {"--data coco", "--data voc", "--data cityscapes"} <= set(re.findall(r"--data \w+", PAGE))


def test_protocols_of_commands_exist() -> None:
    assert set(re.findall(r"--protocol[ =]([a-z][\w-]+)", PAGE)) <= set(protocol_ids())


def test_every_protocol_is_described() -> None:
    shortened = PAGE.replace("-1x`, `-2x`", "-1x`")
    for protocol in protocol_ids():
        assert f"`{protocol.replace('-2x', '-1x')}`" in shortened, protocol
