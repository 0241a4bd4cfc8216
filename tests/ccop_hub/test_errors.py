from __future__ import annotations

import pytest

from ccop_hub.errors import one_line


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
