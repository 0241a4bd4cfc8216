"""Downloads over HTTPS that resume after a cut, retry when the server is busy, and fail early with a clear error."""

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

from ..addresses import credentials, redact, split_address, without_credentials
from ..errors import UserError, one_line
from .cache import RECORD_FILE, Slot
from .reachability import unreachable

ATTEMPTS = 5
"""Consecutive tries without progress after which a download is given up."""

FIRST_WAIT = 1.0
"""Seconds before the second try; doubled before each further one."""

LONGEST_WAIT = 30.0
"""Seconds at most between two tries, even where the server asks for more (`Retry-After`)."""

TIMEOUT = 20.0
"""Seconds without data after which a connection counts as lost."""

_CHUNK = 1 << 20
_progress: Any = tqdm
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
    return Slot.of(address, _file_name(split_address(address).path), published).fetch(
        lambda path: download(address, path)
    )


def _file_name(path: str) -> str:
    """What a download is called in the cache: the last part of an address's path, without what a name may not have."""
    name = re.sub(r"[^\w. -]", "_", unquote(path).rpartition("/")[2])[-100:].lstrip(".")
    return name if name not in ("", RECORD_FILE) else "weights"


def download(url: str, path: Path) -> None:
    """Download into `path`, continuing what an earlier attempt left there if the server still has that file.

    Raises:
        UserError: no such file, no access, no network; says what to do, without the secrets of the address.
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
    """What the headers of a response say: the first byte sent, the length of the whole file, and its version."""

    start: int
    total: int | None
    tag: str | None


def _receive(url: str, path: Path) -> bool:
    """One request; True when the file is whole."""
    parts = split_address(url)
    headers = {"Accept-Encoding": "identity", "User-Agent": "ccop-hub"}
    request = urllib.request.Request(without_credentials(parts), headers=headers)
    if (authorization := credentials(parts)) is not None:
        # Not sent on to where the server redirects.
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
        # Nothing behind what is here: it is whole, or the server's file is another by now.
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
    """Follows a redirect only to where a download would be allowed in the first place."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        """The request to the new address.

        Raises:
            UserError: the new address is not safe.
        """
        split_address(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _open(request: urllib.request.Request, timeout: float = TIMEOUT) -> Any:
    # A new opener each time, since it reads the proxy settings when it is built.
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
    """A number of bytes in a header; None if there is none, or something else."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def _explained(url: str, code: int) -> UserError:
    if code in (401, 403, 407):
        return UserError(f"{url} needs a login (HTTP {code}): download it yourself and give the file's path")
    if code in (404, 410):
        return UserError(f"nothing at {url} (HTTP {code}): check the address")
    return UserError(f"{url} cannot be downloaded (HTTP {code}): check the address, or give a file's path")


def retry_after(header: str | None) -> float:
    """Seconds that a `Retry-After` header asks for: a number or a date (RFC 9110, 10.2.3); 0 for anything else."""
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
        tag = json.loads(_tag_file(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return tag if isinstance(tag, str) else None
