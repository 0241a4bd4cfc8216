"""The exception for mistakes that a user can fix."""


class UserError(Exception):
    """Wrong input that the user can fix.

    The message is one line: what is wrong, then what to do. The console programs print it and exit with code 2; a
    library caller sees an ordinary exception.
    """


def one_line(text: object, limit: int = 160) -> str:
    """Text from a file or a server for use in a message: printable, on one line, cut to `limit` characters."""
    shown = "".join(letter if letter.isprintable() else " " for letter in str(text)[: 4 * limit])
    shown = " ".join(shown.split())
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
