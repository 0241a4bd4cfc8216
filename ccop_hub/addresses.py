"""Check that URLs are safe to download from, and redact their secrets for display."""

from __future__ import annotations

import base64
import re
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from .errors import UserError, one_line

HF_PREFIX = "hf-hub:"
"""Prefix of names on the Hugging Face Hub: `hf-hub:ORG/NAME[@REVISION]`."""

DRIVE_PREFIX = "gdrive:"
"""Prefix of files on Google Drive: `gdrive:ID`."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ADDRESS = re.compile(r"\b(?:https?|hf|s3|gs|ftp)://[^\s\"'<>|]+", re.IGNORECASE)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")


def redact(text: str) -> str:
    """Remove secrets from URLs in a text: user name, password, query and fragment.

    Signed URLs carry their signature or token in the query. Hugging Face Hub tokens are removed anywhere in the text.
    """
    return _TOKEN.sub("hf_...", _ADDRESS.sub(lambda match: _without_secrets(match[0]), text))


def _without_secrets(address: str) -> str:
    try:
        parts = urlsplit(address)
    except ValueError:
        return f"{address.partition('://')[0]}://..."
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def split_address(address: str) -> SplitResult:
    """Split a URL after checking that it is safe to download from.

    Raises:
        UserError: the URL is malformed, or unencrypted and not on this machine. The message contains no secrets.
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
    """Return the `Authorization` header (RFC 7617) for the user name and password in a URL, or None."""
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def without_credentials(parts: SplitResult) -> str:
    """Return the URL to request, without user name and password, which go into a header."""
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
