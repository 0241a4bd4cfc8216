"""Check within a few seconds whether a server is reachable, to fail fast without a network."""

from __future__ import annotations

import queue
import socket
import threading
import urllib.request
from urllib.parse import urlsplit

WAIT = 2.5
"""Seconds to wait for a connection, including name resolution."""


def unreachable(address: str) -> str | None:
    """Return why the server of a URL, or the proxy to it, is unreachable, or None if it is reachable.

    Uses the proxies set in the environment (`https_proxy`, `no_proxy`).
    """
    try:
        target = _server(address)
    except ValueError as error:  # a malformed URL or proxy
        return str(error)
    if target is None:
        return None  # let urllib handle, and report, anything unusual
    answers: queue.Queue[str | None] = queue.Queue()
    # Use a thread, since the system's name resolution has no timeout.
    threading.Thread(target=_connect, args=(target, answers), daemon=True).start()
    try:
        return answers.get(timeout=WAIT)
    except queue.Empty:
        return f"no answer within {WAIT:g} s"


def _server(address: str) -> tuple[str, int] | None:
    parts = urlsplit(address)
    host = parts.hostname or ""
    proxy = urllib.request.getproxies().get(parts.scheme)
    if proxy and not urllib.request.proxy_bypass(host):
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if not parts.hostname:
        return None
    return parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)


def _connect(target: tuple[str, int], answers: queue.Queue[str | None]) -> None:
    try:
        socket.create_connection(target, timeout=WAIT).close()
    except (OSError, UnicodeError) as error:
        answers.put(getattr(error, "strerror", None) or str(error) or type(error).__name__)
    else:
        answers.put(None)
