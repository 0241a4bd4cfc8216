import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from ccop_hub.markup import markdown_text, utf8_text, visible

HOSTILE = [
    "[/red]x",
    r"$\x{",
    "a|b",
    "<script>alert(1)</script>",
    "![x](http://host/?a)",
    "\x1b[31mred\x07",
    "one\ntwo\x85three\u2028four",
    "\u202eback\u2066",
    "caf\udce9",
    "`code` *bold* __bold__ ~~gone~~ &lt;",
    "# heading",
    "back\\slash\\",
    "[link]: http://host",
]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("resnet50, größe 日本語", "resnet50, größe 日本語"),
        ("two\nlines\tand a tab", "two lines and a tab"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("a\u202eb\u2066c\u200f", r"a\u202eb\u2066c\u200f"),
        ("next\x85line", "next line"),
        ("caf\udce9", r"caf\udce9"),
    ],
)
def test_what_does_not_print_is_written_as_an_escape(text, shown):
    assert visible(text) == shown


@given(text=st.text() | st.sampled_from(HOSTILE))
def test_visible_text_is_printable_on_one_line_and_encodes(text):
    shown = visible(text)
    assert shown.isprintable()
    assert shown.encode().decode() == shown
    assert visible(shown) == shown


@pytest.mark.parametrize("text", HOSTILE)
def test_a_markdown_cell_shows_the_text_itself(text):
    table = f"| a | b |\n|---|---|\n| {markdown_text(text)} | x |\n"
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(table)
    cells = [tokens[place + 1].children for place, token in enumerate(tokens) if token.type == "td_open"]
    assert len(cells) == 2
    assert {child.type for child in cells[0]} <= {"text", "text_special"}
    assert "".join(child.content for child in cells[0]) == visible(text).strip()


def test_text_for_files_only_loses_what_utf8_cannot_express() -> None:
    assert utf8_text("größe 日本語\n\x1b") == "größe 日本語\n\x1b"
    assert utf8_text("caf\udce9 \ud800") == r"caf\xe9 \ud800"
    utf8_text("\udcff\udfff").encode()
