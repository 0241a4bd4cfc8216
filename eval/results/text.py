"""Text from files, made harmless for a terminal, a table or a page."""

from __future__ import annotations


def visible(text: str) -> str:
    r"""The text on one line, with characters that would not print written as escapes such as `\x1b` or `\u202e`.

    These are terminal control sequences, characters that change the direction of writing, and other invisible ones.
    """
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    return " " if letter.isspace() else letter.encode("unicode_escape").decode("ascii")
