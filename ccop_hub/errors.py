"""The exception for errors that the user can fix."""

from __future__ import annotations

from collections.abc import Sequence

from .markup import visible
from .redaction import redact


class UserError(Exception):
    """Invalid input that the user can fix.

    The message is one line: what is wrong, then what to do. The console programs print it and exit with code 2; in
    Python it is an ordinary exception. Line breaks and characters that do not print, which names of files and values
    of settings may contain, are escaped, and passwords and tokens in URLs are left out.
    """

    def __str__(self) -> str:
        """Return the message as one printable line without secrets; a value of megabytes in it is cut out."""
        shown = redact(visible(_ends(super().__str__(), _LONGEST)))
        return _ends(shown, _LONGEST_MESSAGE)


_LONGEST = 1 << 16
"""Characters of a text to look for secrets."""

_LONGEST_MESSAGE = 3000  # characters


def _ends(text: str, limit: int) -> str:
    """Return the start and the end of a text of more than `limit` characters."""
    return text if len(text) <= limit else f"{text[: limit // 2]} ... {text[-limit // 2 :]}"


def one_line(text: object, limit: int = 160) -> str:
    """Format untrusted text for a message: printable, on one line, without secrets, truncated to `limit` characters."""
    # Secrets are removed first: a truncated URL may have lost the "@" that marks what precedes it as a password.
    clean = redact(str(text)[:_LONGEST])
    shown = "".join(letter if letter.isprintable() else " " for letter in clean[: 4 * limit])
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def first_names(names: Sequence[str], most: int) -> str:
    """List the first `most` of untrusted names for a message, and the number of the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(one_line(name, 200) for name in names[:most]) + more
