"""Web addresses: which are safe to download from, and how they are shown without the secrets in them."""

from __future__ import annotations

import base64
import re
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from .errors import UserError, one_line

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ADDRESS = re.compile(r"\b(?:https?|hf|s3|gs|ftp)://[^\s\"'<>|]+", re.IGNORECASE)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")


def redact(text: str) -> str:
    """Text with every secret of the addresses in it left out: user name, password, query and fragment.

    A query is where signed addresses and tokens have their secret. Tokens of the Hugging Face Hub are left out wherever
    they are.
    """
    return _TOKEN.sub("hf_...", _ADDRESS.sub(lambda match: _without_secrets(match[0]), text))


def _without_secrets(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return f"{address.partition('://')[0]}://..."
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def split_address(address: str) -> SplitResult:
    """The parts of an address that may be downloaded from.

    Raises:
        UserError: not a well-formed address, or one without encryption (except of this machine); shows no secret.
    """
    shown = one_line(redact(_without_secrets(address)))
    try:
        parts = urlsplit(address)
        _ = parts.port
    except ValueError:
        raise UserError(f"{shown} is not a valid URL: check it") from None
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise UserError(f"{shown} is not an https address, so the file could be altered in transit: use https")
    if not parts.hostname or not address.isascii() or re.search(r"[\x00-\x20\x7f]", address):
        raise UserError(
            f"{shown} is not a valid URL: check it, and percent-encode spaces and non-ASCII characters (%20)"
        )
    return parts


def credentials(parts: SplitResult) -> str | None:
    """The value of an `Authorization` header for the user name and password in an address (RFC 7617), or None."""
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def without_credentials(parts: SplitResult) -> str:
    """The address to ask for, whose user name and password go into a header."""
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
