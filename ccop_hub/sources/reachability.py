"""Whether a server answers at all, within a few seconds: a machine without network learns it at once."""

from __future__ import annotations

import queue
import socket
import threading
import urllib.request
from urllib.parse import urlsplit

WAIT = 2.5
"""Seconds within which a reachable server accepts a connection, name resolution included."""


def unreachable(address: str) -> str | None:
    """Why no connection to an address's server, or to the proxy on the way to it, comes about; None if one does.

    Proxies are taken from the environment (`https_proxy`, `no_proxy`).
    """
    target = _server(address)
    if target is None:
        return None  # something that only urllib understands: it will tell
    answers: queue.Queue[str | None] = queue.Queue()
    # In a thread, since the system's name resolution cannot be given a time limit.
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
