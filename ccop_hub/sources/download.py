"""Files over HTTPS: resumed where they were cut off, tried again when a server is busy, or a clear error at once."""

from __future__ import annotations

import dataclasses
import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from ..errors import UserError
from .cache import Slot

ATTEMPTS = 5
"""Tries in a row that may bring nothing new before a download is given up."""

FIRST_WAIT = 1.0
"""Seconds before the second try; doubled before each further one."""

LONGEST_WAIT = 30.0
"""Seconds at most between two tries, even where the server asks for more (`Retry-After`)."""

TIMEOUT = 20.0
"""Seconds without a byte after which a connection counts as cut."""

PROBE_TIMEOUT = 5.0
"""Seconds within which a reachable server answers."""

_CHUNK = 1 << 20
_progress: Any = tqdm
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_BUSY = (408, 425, 429, 500, 502, 503, 504)


def fetch_url(url: str, published: str | None = None) -> Path:
    """The file at an `https://` address, through the cache.

    Proxies are taken from the environment (`https_proxy`, `no_proxy`).

    Args:
        url: the address. A fragment `#sha256=HEX` or `#md5=HEX` states the digest it must have.
        published: the digest that it must have, `sha256:HEX` or `md5:HEX`; leading digits suffice.

    Raises:
        UserError: no such file, no access, no network, another digest; says what to do.
    """
    address, _, fragment = url.partition("#")
    algorithm, _, digits = fragment.partition("=")
    if algorithm in ("sha256", "md5") and digits:
        published = f"{algorithm}:{digits}"
    _require_safe(address)
    name = Path(unquote(urlsplit(address).path)).name or "weights"
    return Slot.of(address, name, published).fetch(lambda path: download(address, path))


def download(url: str, path: Path) -> None:
    """Download into `path`, going on behind what an earlier attempt left there if the server still has that file."""
    wait, failures = FIRST_WAIT, 0
    while True:
        before = _size(path)
        try:
            if _receive(url, path):
                _tag_file(path).unlink(missing_ok=True)
                return
            problem, asked = "the connection was cut", 0.0
        except urllib.error.HTTPError as error:
            if error.code not in _BUSY:
                raise _explained(url, error.code) from None
            problem, asked = f"the server answered {error.code}", _retry_after(error)
        except urllib.error.URLError as error:
            if _size(path) == 0:
                raise UserError(
                    f"can not reach {urlsplit(url).hostname} ({error.reason}): check the network and the proxies, or "
                    f"download {url} elsewhere and give the file's path"
                ) from None
            problem, asked = str(error.reason), 0.0
        except (OSError, http.client.HTTPException) as error:
            problem, asked = str(error) or type(error).__name__, 0.0
        failures = 0 if _size(path) > before else failures + 1
        if failures == ATTEMPTS:
            raise UserError(f"gave up on {url} after {ATTEMPTS} tries ({problem}): try later, the rest will be resumed")
        time.sleep(min(max(wait, asked), LONGEST_WAIT))
        wait = FIRST_WAIT if failures == 0 else 2 * wait


@dataclasses.dataclass(frozen=True)
class _Answer:
    """What the headers of a response say: the first byte sent, the length of the whole file, and its version."""

    start: int
    total: int | None
    tag: str | None


def _receive(url: str, path: Path) -> bool:
    """One request; True when the file is whole."""
    request = urllib.request.Request(url, headers={"Accept-Encoding": "identity", "User-Agent": "ccop-hub"})
    have, tag = _size(path), _tag(path)
    if have and tag:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag)
    try:
        response = _open(request)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # Nothing behind what is here: it is whole, or the server's file is another by now.
        whole = error.headers.get("Content-Range", "") == f"bytes */{have}"
        if not whole:
            path.unlink()
        return whole
    with response:
        _require_safe(response.geturl())
        answer = _answer(response)
        _tag_file(path).write_text(json.dumps(answer.tag), encoding="utf-8")
        with path.open("r+b" if answer.start else "wb") as file:
            file.seek(answer.start)
            file.truncate()
            title = path.name.removesuffix(".partial")
            with _progress(total=answer.total, initial=answer.start, unit="B", unit_scale=True, desc=title) as bar:
                while chunk := _read(response):
                    file.write(chunk)
                    bar.update(len(chunk))
    return answer.total is None or _size(path) == answer.total


def is_reachable(url: str) -> bool:
    """Whether any server answers at an address; one try, so that a machine without network learns it at once."""
    try:
        with _open(urllib.request.Request(url, method="HEAD"), PROBE_TIMEOUT):
            return True
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:
        # A certificate that only this client does not trust is an answer all the same.
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, http.client.HTTPException):
        return False


def _open(request: urllib.request.Request, timeout: float = TIMEOUT) -> Any:
    # A new opener each time, since it reads the proxy settings when it is built.
    return urllib.request.build_opener().open(request, timeout=timeout)


def _read(response: Any) -> bytes:
    try:
        chunk: bytes = response.read1(_CHUNK)
        return chunk
    except (http.client.IncompleteRead, ConnectionError, TimeoutError):
        return b""


def _answer(response: Any) -> _Answer:
    headers = response.headers
    tag = headers.get("ETag") or headers.get("Last-Modified")
    if tag is not None and tag.startswith("W/"):
        tag = None
    length = headers.get("Content-Length")
    if response.status == 206:
        span, _, total = headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        start = int(span.partition("-")[0])
        return _Answer(start, int(total) if total.isdigit() else start + int(length), tag)
    return _Answer(0, int(length) if length is not None else None, tag)


def _explained(url: str, code: int) -> UserError:
    if code in (401, 403, 407):
        return UserError(f"{url} needs permission (HTTP {code}): download it with your login and give the file's path")
    if code in (404, 410):
        return UserError(f"nothing at {url} (HTTP {code}): check the address")
    return UserError(f"{url} can not be downloaded (HTTP {code}): check the address, or give a file's path")


def _retry_after(error: urllib.error.HTTPError) -> float:
    asked = error.headers.get("Retry-After", "")
    return float(asked) if asked.isdigit() else 0.0


def _require_safe(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise UserError(f"{url} is not an https address: nothing would protect the file on its way; use https")


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _tag_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.tag")


def _tag(path: Path) -> str | None:
    try:
        tag = json.loads(_tag_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return tag if isinstance(tag, str) else None
