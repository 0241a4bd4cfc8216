import pytest
from ccop_eval.results.text import visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("resnet50, größe 日本語", "resnet50, größe 日本語"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\u202eb\u2066c\u200f", r"a\u202eb\u2066c\u200f"),
    ],
)
def test_what_does_not_print_is_written_as_an_escape(text, shown):
    assert visible(text) == shown
