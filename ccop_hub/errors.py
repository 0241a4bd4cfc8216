"""The one exception for a user's mistake."""


class UserError(Exception):
    """Wrong input that the user can mend.

    The message is one line: what is wrong, then what to do. The console programs print it and exit with code 2; a
    library caller sees an ordinary exception.
    """
