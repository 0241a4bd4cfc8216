from __future__ import annotations

import pytest

from ccop_hub.errors import UserError, one_line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("two\nlines\tand  spaces ", "two lines and spaces"),
        ("\x1b[31mred\x07", "[31mred"),
        ("a" * 20, "aaaaaaa..."),
        (ValueError("x"), "x"),
        ("", ""),
    ],
)
def test_one_line(text: object, shown: str) -> None:
    assert one_line(text, 10 if len(str(text)) == 20 else 160) == shown


def test_a_value_of_megabytes_is_cut_out_of_a_message() -> None:
    shown = str(UserError(f"a.json has format {'y' * 3_000_000}, not 1: make it again"))
    assert shown.startswith("a.json has format yyy")
    assert shown.endswith("yyy, not 1: make it again")
    assert len(shown) < 4000
    assert str(UserError("short: fix it")) == "short: fix it"
