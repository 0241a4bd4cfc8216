"""Show untrusted text literally in terminals, tables, Markdown and pages."""

from __future__ import annotations

import re


def visible(text: object) -> str:
    r"""Put text on one line and escape non-printing characters, e.g. as `\x1b` or `\u202e`.

    These include terminal control sequences, text direction overrides, unpaired surrogates and other invisible
    characters.
    """
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in str(text))


def markdown_text(text: object) -> str:
    """Escape everything in text that Markdown would interpret as markup or HTML; the result is one line."""
    escaped = re.sub(r"([\\`*|~$\[\]<>&])", r"\\\1", visible(text))
    # An underscore inside a word, common in names of weights, is not markup.
    return re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", escaped)


def _escape(letter: str) -> str:
    return " " if letter.isspace() else letter.encode("unicode_escape").decode("ascii")
