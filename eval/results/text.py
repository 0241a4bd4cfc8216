"""Sanitise untrusted text for terminals, tables and pages."""

from __future__ import annotations


def visible(text: str) -> str:
    r"""Put text on one line and escape non-printing characters, e.g. as `\x1b` or `\u202e`.

    These include terminal control sequences, text direction overrides and other invisible characters.
    """
    return "".join(letter if letter.isprintable() else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    return " " if letter.isspace() else letter.encode("unicode_escape").decode("ascii")
