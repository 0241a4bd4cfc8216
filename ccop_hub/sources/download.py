"""HTTPS downloads that resume after an interruption, retry when the server is busy, and fail early and clearly."""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

from ..addresses import credentials, hide_secrets, split_address, without_credentials
from ..errors import UserError, one_line
from ..redaction import redact
from ..regular_files import read_json
from .cache import RECORD_FILE, Slot
from .reachability import unreachable

ATTEMPTS = 5
"""Maximum number of consecutive attempts without progress."""

FIRST_WAIT = 1.0
"""Seconds to wait before the second attempt; doubles with each further attempt."""

LONGEST_WAIT = 30.0
"""Maximum seconds between attempts, even if the server asks for more (`Retry-After`)."""

TIMEOUT = 20.0
"""Seconds without data before a connection is considered lost."""

_CHUNK = 1 << 20
_progress: Any = tqdm
_BUSY = (408, 425, 429, 500, 502, 503, 504)


def fetch_url(url: str, published: str | None = None) -> Path:
    """Return the file at an `https://` URL, from the cache or downloaded.

    Uses the proxies set in the environment (`https_proxy`, `no_proxy`).

    Args:
        url: the URL. A fragment `#sha256=HEX` or `#md5=HEX` specifies the expected digest.
        published: expected digest, `sha256:HEX` or `md5:HEX`; may be shortened to its leading digits.

    Raises:
        UserError: the file does not exist or is not accessible, there is no network, or the digest does not match. The
            message says what to do.
    """
    address, _, fragment = url.partition("#")
    algorithm, _, digits = fragment.partition("=")
    if algorithm in ("sha256", "md5") and digits:
        published = f"{algorithm}:{digits}"
    slot = Slot.of(address, _file_name(split_address(address).path), published)
    try:
        return slot.fetch(lambda path: download(address, path))
    except UserError as error:
        raise UserError(hide_secrets(str(error), url)) from None


def _file_name(path: str) -> str:
    """Return the file name in the cache: the last component of the URL's path, without invalid characters."""
    name = re.sub(r"[^\w. -]", "_", unquote(path).rpartition("/")[2])[-100:].lstrip(".")
    return name if name not in ("", RECORD_FILE) else "weights"


def download(url: str, path: Path) -> None:
    """Download to `path`, resuming an earlier attempt if the file on the server has not changed.

    Raises:
        UserError: the file does not exist or is not accessible, or there is no network. The message says what to do and
            contains no secrets.
    """
    shown = redact(url)
    if (reason := unreachable(url)) is not None:
        raise _no_network(shown, reason)
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
                raise _explained(shown, error.code) from None
            problem, asked = f"the server answered {error.code}", retry_after(error.headers.get("Retry-After"))
        except urllib.error.URLError as error:
            if _size(path) == 0:
                raise _no_network(shown, str(error.reason)) from None
            problem, asked = str(error.reason), 0.0
        except (OSError, http.client.HTTPException) as error:
            problem, asked = str(error) or type(error).__name__, 0.0
        failures = 0 if _size(path) > before else failures + 1
        if failures == ATTEMPTS:
            told = one_line(redact(problem))
            raise UserError(
                f"gave up on {shown} after {ATTEMPTS} attempts ({told}): try again later to resume the download"
            )
        time.sleep(min(max(wait, asked), LONGEST_WAIT))
        wait = FIRST_WAIT if failures == 0 else 2 * wait


def _no_network(shown: str, reason: str) -> UserError:
    return UserError(
        f"cannot reach {urlsplit(shown).hostname} ({one_line(redact(reason))}): check the network and proxy "
        f"settings, or download {shown} elsewhere and give the file's path"
    )


@dataclasses.dataclass(frozen=True)
class _Answer:
    """Parsed response headers: offset of the first byte, length of the complete file, and its version."""

    start: int
    total: int | None
    tag: str | None


def _receive(url: str, path: Path) -> bool:
    """Send one request; return True once the file is complete."""
    parts = split_address(url)
    headers = {"Accept-Encoding": "identity", "User-Agent": "ccop-hub"}
    request = urllib.request.Request(without_credentials(parts), headers=headers)
    if (authorization := credentials(parts)) is not None:
        # Do not forward the credentials on a redirect.
        request.add_unredirected_header("Authorization", authorization)
    have, tag = _size(path), _tag(path)
    if have and tag:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", tag)
    try:
        response = _open(request)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        # The range is past the end: either the file is complete, or it has changed on the server.
        whole = error.headers.get("Content-Range", "") == f"bytes */{have}"
        if not whole:
            path.unlink()
        return whole
    with response:
        answer = _answer(response)
        if answer.start not in (0, have):
            path.unlink(missing_ok=True)
            raise OSError(f"the server resumed at byte {answer.start}, not at {have}")
        _require_room(path, answer)
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


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follow redirects only to URLs that are safe to download from."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """Return the request for the new URL.

        Raises:
            UserError: the new URL is not safe.
        """
        split_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request, timeout: float = TIMEOUT) -> Any:
    # Build a new opener each time, since it reads the proxy settings on construction.
    return urllib.request.build_opener(_SafeRedirects).open(request, timeout=timeout)


def _require_room(path: Path, answer: _Answer) -> None:
    free = shutil.disk_usage(path.parent).free
    if answer.total is not None and answer.total - answer.start > free:
        raise UserError(
            f"the file has {answer.total} bytes, but {path.parent} has only {free} free: free some space, or set "
            "CCOP_CACHE to a folder on another disk"
        )


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
    length = _natural(headers.get("Content-Length"))
    if response.status == 206:
        match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", headers.get("Content-Range", "").strip())
        if match is None:
            raise OSError("the server sent a part of the file without saying which")
        start, total = int(match[1]), _natural(match[2])
        return _Answer(start, start + length if total is None and length is not None else total, tag)
    return _Answer(0, length, tag)


def _natural(text: str | None) -> int | None:
    """Parse a number of bytes in a header; None if it is missing or malformed."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def _explained(url: str, code: int) -> UserError:
    if code in (401, 403, 407):
        return UserError(f"{url} needs a login (HTTP {code}): download it yourself and give the file's path")
    if code in (404, 410):
        return UserError(f"nothing at {url} (HTTP {code}): check the address")
    return UserError(f"{url} cannot be downloaded (HTTP {code}): check the address, or give a file's path")


def retry_after(header: str | None) -> float:
    """Parse a `Retry-After` header (RFC 9110, 10.2.3), a number or a date, to seconds; 0 if malformed."""
    if header is None:
        return 0.0
    seconds = _natural(header)
    if seconds is not None:
        return float(seconds)
    try:
        date = email.utils.parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return 0.0
    if date.tzinfo is None:
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, (date - datetime.datetime.now(datetime.UTC)).total_seconds())


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _tag_file(path: Path) -> Path:
    return path.with_name(f"{path.name}.tag")


def _tag(path: Path) -> str | None:
    try:
        tag = read_json(_tag_file(path))
    except (OSError, ValueError):
        return None
    return tag if isinstance(tag, str) else None
