"""Check that URLs are safe to download from, and separate their credentials."""

from __future__ import annotations

import base64
import re
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit, urlunsplit

from .errors import UserError, one_line
from .redaction import redact, without_secrets

_SHORTEST_SECRET = 6
"""Shorter values, such as `1`, are no secrets and occur in any text."""

HF_PREFIX = "hf-hub:"
"""Prefix of names on the Hugging Face Hub: `hf-hub:ORG/NAME[@REVISION]`."""

DRIVE_PREFIX = "gdrive:"
"""Prefix of files on Google Drive: `gdrive:ID`."""

PACKAGE_PREFIX = "package:"
"""Prefix of files that are part of `ccop_hub`, in its folder `weights`: `package:FOLDER`."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def split_address(address: str) -> SplitResult:
    """Split a URL after checking that it is safe to download from.

    Raises:
        UserError: the URL is malformed, or unencrypted and not on this machine. The message contains no secrets.
    """
    shown = one_line(redact(without_secrets(address)))
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


def hide_secrets(text: str, address: str) -> str:
    """Remove from a text the secrets of a URL, wherever a server may have repeated them.

    Args:
        text: text such as an error message.
        address: the URL whose user name, password, query and fragment are secret.
    """
    try:
        parts = urlsplit(address)
        found = [parts.username, parts.password, parts.query, parts.fragment]
    except ValueError:
        return text
    found += [value for _, value in parse_qsl(parts.query)]
    secrets = {form for secret in found if secret for form in (secret, unquote(secret))}
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "...")
    return text


def credentials(parts: SplitResult) -> str | None:
    """Return the `Authorization` header (RFC 7617) for the user name and password in a URL, or None."""
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(pair.encode()).decode()}"


def without_credentials(parts: SplitResult) -> str:
    """Return the URL to request, without user name and password, which go into a header."""
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
