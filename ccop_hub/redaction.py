"""Remove secrets from text that is shown or saved."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit, urlunsplit

_ADDRESS = re.compile(r"\b(?!file:)[a-z][a-z0-9+.-]{1,30}://[^\s\"'<>|]+", re.IGNORECASE)
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")


def redact(text: str) -> str:
    """Remove secrets from URLs in a text: user name, password, query and fragment.

    Signed URLs carry their signature or token in the query. Hugging Face Hub tokens are removed anywhere in the text.
    """
    return _TOKEN.sub("hf_...", _ADDRESS.sub(lambda match: without_secrets(match[0]), text))


def redact_parts(text: str, address: str) -> str:
    """Remove the secrets of an address from a text that may quote parts of it, such as the query alone."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return text
    user, _, password = parts.netloc.rpartition("@")[0].partition(":")
    for secret in (parts.query, parts.fragment, password, unquote(password), "" if password else user):
        text = text.replace(secret, "...") if secret else text
    return text


def without_secrets(address: str) -> str:
    """Remove user name, password, query and fragment from a URL, which may be malformed."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return f"{address.partition('://')[0]}://..."
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))
