"""Show untrusted text literally in terminals, tables, Markdown and pages."""

from __future__ import annotations

import re


def visible(text: object) -> str:
    r"""Put text on one line and escape non-printing characters, e.g. as `\x1b` or `\u202e`.

    These include terminal control sequences, text direction overrides, unpaired surrogates and other invisible
    characters.
    """
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in str(text))


def utf8_text(text: str) -> str:
    r"""Replace what UTF-8 cannot express by escapes like `\xff`: the bytes of file names in other encodings."""
    return re.sub("[\ud800-\udfff]", lambda found: _surrogate(ord(found[0])), text)


def markdown_text(text: object) -> str:
    """Escape everything in text that Markdown would interpret as markup or HTML; the result is one line."""
    escaped = re.sub(r"([\\`*|~$\[\]<>&])", r"\\\1", visible(text))
    # An underscore inside a word, common in names of weights, is not markup.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", escaped)


def _surrogate(code: int) -> str:
    # Python represents the byte 0xNN of a file name by U+DCNN.
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"\\u{code:04x}"


def _escape(letter: str) -> str:
    return " " if letter.isspace() else letter.encode("unicode_escape").decode("ascii")
