from __future__ import annotations

import hashlib
import io
import json
import multiprocessing
import re
import socket
import sys
import threading
import types
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ccop_hub.cli import main
from ccop_hub.errors import UserError
from ccop_hub.sources import download
from ccop_hub.sources.cache import downloads_folder
from ccop_hub.sources.download import fetch_url
from ccop_hub.sources.google_drive import fetch_drive
from ccop_hub.sources.resolve import resolve

CONTENT = bytes(range(256)) * 1200
SHA256 = hashlib.sha256(CONTENT).hexdigest()
MD5 = hashlib.md5(CONTENT).hexdigest()


class FileServer:
    """Serves the same content at every path, with range support; `plan` lists faults, one per request.

    A fault is a status to return, or, negated, the number of bytes after which to drop the connection.
    """

    def __init__(self) -> None:
        self.content = CONTENT
        self.tag: str | None = '"v1"'
        self.ranges = True
        self.plan: list[int] = []
        self.seen: list[str | None] = []
        self.headers: dict[str, str] = {}
        self.authorizations: list[str | None] = []
        self.claimed: str | None = None
        self.spans: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                server.answer(self)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def url(self, path: str = "weights.pth") -> str:
        return f"http://127.0.0.1:{self._server.server_port}/{path}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.seen.append(request.headers.get("Range"))
        self.authorizations.append(request.headers.get("Authorization"))
        step = self.plan.pop(0) if self.plan else 0
        if step > 0:
            request.send_response(step)
            for name, value in {"Content-Length": "0", **self.headers}.items():
                request.send_header(name, value)
            request.end_headers()
            return
        found = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        start = int(found[1]) if found and self.ranges and request.headers.get("If-Range") == self.tag else 0
        if start >= len(self.content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(self.content)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", self.claimed or str(len(self.content) - start))
        if self.claimed:
            request.close_connection = True
        if start:
            span = f"bytes {start}-{len(self.content) - 1}/{len(self.content)}"
            request.send_header("Content-Range", self.spans.pop(0) if self.spans else span)
        if self.tag:
            request.send_header("ETag", self.tag)
        request.end_headers()
        body = self.content[start:] if step == 0 else self.content[start : start - step]
        request.wfile.write(body)
        if step < 0:
            request.close_connection = True


@pytest.fixture
def server() -> Iterator[FileServer]:
    server = FileServer()
    yield server
    server.close()


def test_first_download_and_cache(server: FileServer) -> None:
    file = fetch_url(server.url("some%20dir/my%20weights.pth"))
    assert file.name == "my weights.pth"
    assert file.read_bytes() == CONTENT
    assert downloads_folder() in file.parents
    assert fetch_url(server.url("some%20dir/my%20weights.pth")) == file
    assert len(server.seen) == 1
    assert sorted(path.name for path in file.parent.iterdir()) == ["my weights.pth", "record.json"]


@pytest.mark.parametrize("digest", [f"sha256:{SHA256}", f"md5:{MD5}", f"md5:{MD5[:8]}", f"sha256:{SHA256[:8].upper()}"])
def test_published_digest(server: FileServer, digest: str) -> None:
    assert fetch_url(server.url(), digest).read_bytes() == CONTENT


@pytest.mark.parametrize("digest", ["md5:59fd9945", f"sha256:{MD5}"])
def test_wrong_digest_is_refused_and_not_kept(server: FileServer, digest: str) -> None:
    with pytest.raises(UserError, match=f"does not have the published digest {digest}"):
        fetch_url(server.url(), digest)
    assert not [path for path in downloads_folder().rglob("weights*") if path.is_file()]


def test_digest_in_the_address(server: FileServer) -> None:
    assert fetch_url(f"{server.url()}#sha256={SHA256}").read_bytes() == CONTENT
    with pytest.raises(UserError, match="published digest md5:0123"):
        fetch_url(f"{server.url('other.pth')}#md5=0123")


def test_without_published_digest_the_first_is_recorded(server: FileServer, caplog: pytest.LogCaptureFixture) -> None:
    file = fetch_url(server.url())
    assert "no digest was published" in caplog.text
    assert f"sha256:{SHA256}" in caplog.text
    file.unlink()
    server.content, server.tag = CONTENT[::-1], '"v2"'
    with pytest.raises(UserError, match=rf"but sha256:{SHA256} was recorded when it was first downloaded"):
        fetch_url(server.url())
    server.content = CONTENT
    assert fetch_url(server.url()).read_bytes() == CONTENT


def test_a_damaged_cache_is_repaired(server: FileServer, caplog: pytest.LogCaptureFixture) -> None:
    file = fetch_url(server.url())
    file.write_bytes(b"damaged")
    assert fetch_url(server.url()).read_bytes() == CONTENT
    assert "fetching it again" in caplog.text
    file.with_name("record.json").write_text("{")
    with pytest.raises(UserError, match=r"record\.json is damaged: delete the folder"):
        fetch_url(server.url())


@pytest.mark.usefixtures("no_waiting")
def test_cut_connections_are_resumed(server: FileServer) -> None:
    server.plan = [-100_000, -50_000]
    assert fetch_url(server.url(), f"sha256:{SHA256}").read_bytes() == CONTENT
    assert server.seen == [None, "bytes=100000-", "bytes=150000-"]


@pytest.mark.usefixtures("no_waiting")
def test_resumed_by_a_later_call(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "ATTEMPTS", 1)
    server.plan = [-100_000, 503]
    with pytest.raises(UserError, match=r"gave up .* after 1 .*503.*resume"):
        fetch_url(server.url())
    assert fetch_url(server.url()).read_bytes() == CONTENT
    assert server.seen[-1] == "bytes=100000-"


@pytest.mark.usefixtures("no_waiting")
def test_another_file_on_the_server_starts_over(server: FileServer) -> None:
    server.plan = [-100_000]
    partial = downloads_folder() / hashlib.sha256(server.url().encode()).hexdigest()[:16] / "weights.pth.partial"

    def changed() -> None:
        server.content, server.tag = CONTENT[::-1], '"v2"'

    partial.parent.mkdir(parents=True)
    partial.write_bytes(b"of the old version")
    partial.with_name("weights.pth.partial.tag").write_text(json.dumps('"v0"'))
    changed()
    server.plan = []
    assert fetch_url(server.url()).read_bytes() == CONTENT[::-1]
    assert server.seen == ["bytes=18-"]


@pytest.mark.usefixtures("no_waiting")
@pytest.mark.parametrize(("ranges", "tag"), [(False, '"v1"'), (True, None), (True, 'W/"weak"')])
def test_servers_that_can_not_resume_start_over(server: FileServer, ranges: bool, tag: str | None) -> None:
    server.ranges, server.tag, server.plan = ranges, tag, [-100_000]
    assert fetch_url(server.url()).read_bytes() == CONTENT


@pytest.mark.usefixtures("no_waiting")
def test_all_bytes_there_already(server: FileServer) -> None:
    partial = downloads_folder() / hashlib.sha256(server.url().encode()).hexdigest()[:16] / "weights.pth.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT)
    partial.with_name("weights.pth.partial.tag").write_text(json.dumps('"v1"'))
    assert fetch_url(server.url()).read_bytes() == CONTENT
    assert len(server.seen) == 1


def test_busy_servers_are_asked_again(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    server.plan, server.headers = [429, 500, 503], {"Retry-After": "7"}
    assert fetch_url(server.url()).read_bytes() == CONTENT
    assert waited == [7.0, 7.0, 7.0]
    server.plan, server.headers = [429], {"Retry-After": "86400"}
    fetch_url(server.url("again.pth"))
    assert waited[3:] == [download.LONGEST_WAIT]


@pytest.mark.parametrize(
    ("status", "said"),
    [(404, "check the address"), (401, "needs a login"), (403, "give the file's path"), (418, "HTTP 418")],
)
def test_refusals_are_told_at_once(server: FileServer, status: int, said: str) -> None:
    server.plan = [status]
    with pytest.raises(UserError, match=said):
        fetch_url(server.url())
    assert len(server.seen) == 1


def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setattr("time.sleep", lambda _: pytest.fail("waited"))
    with pytest.raises(UserError, match=r"cannot reach 127\.0\.0\.1 .*check the network"):
        fetch_url(f"http://127.0.0.1:{port}/weights.pth")


def test_offline(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch_url(server.url())
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch_url(server.url()).read_bytes() == CONTENT
    with pytest.raises(UserError, match="not cached and HF_HUB_OFFLINE"):
        fetch_url(server.url("other.pth"))
    assert len(server.seen) == 1


def test_proxies_are_used(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url(""))
    monkeypatch.setenv("no_proxy", "")
    # The target host does not exist, so only the proxy can have answered.
    monkeypatch.setattr("ccop_hub.addresses._LOOPBACK", ("behind.invalid",))
    assert fetch_url("http://behind.invalid/weights.pth").read_bytes() == CONTENT


@pytest.mark.parametrize("url", ["http://example.invalid/a.pth", "ftp://example.invalid/a.pth", "file:///etc/passwd"])
def test_only_https(url: str) -> None:
    with pytest.raises(UserError, match="use https"):
        fetch_url(url)


def _fetch(url: str, cache: str, barrier: Any, answers: Any) -> None:
    import os

    os.environ["CCOP_HUB_CACHE"] = cache
    barrier.wait(60)
    answers.put(fetch_url(url).read_bytes() == CONTENT)


def test_eight_processes_download_once(server: FileServer, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(8), context.Queue()
    arguments = (server.url(), str(tmp_path / "shared"), barrier, answers)
    processes = [context.Process(target=_fetch, args=arguments) for _ in range(8)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=900) for _ in processes] == [True] * 8
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(server.seen) == 1


def drive(monkeypatch: pytest.MonkeyPatch, give: Callable[..., object]) -> None:
    monkeypatch.setattr("ccop_hub.sources.google_drive.unreachable", lambda _: None)
    monkeypatch.setitem(sys.modules, "gdown", types.SimpleNamespace(download=give))  # type: ignore[arg-type]


def test_google_drive(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    asked: list[object] = []

    def give(id: str, output: str, resume: bool) -> str:
        asked.append((id, resume))
        Path(output).write_bytes(CONTENT)
        return output

    drive(monkeypatch, give)
    file = fetch_drive("gdrive:abc")
    assert file.read_bytes() == CONTENT
    assert fetch_drive("gdrive:abc") == file
    assert asked == [("abc", True)]
    assert "no digest was published for gdrive:abc" in caplog.text
    file.unlink()

    def give_another(id: str, output: str, resume: bool) -> str:
        Path(output).write_bytes(b"something else")
        return output

    drive(monkeypatch, give_another)
    with pytest.raises(UserError, match=f"but sha256:{SHA256} was recorded"):
        fetch_drive("gdrive:abc")


def test_google_drive_refusing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> None:
        raise RuntimeError("Too many users have viewed\n\tor downloaded this file")

    drive(monkeypatch, refuse)
    with pytest.raises(
        UserError, match=r"Too many users have viewed or .*drive\.google\.com/file/d/abc/view in a browser"
    ):
        fetch_drive("gdrive:abc")
    drive(monkeypatch, lambda **_: None)
    with pytest.raises(UserError, match="did not return the file"):
        fetch_drive("gdrive:abc")
    monkeypatch.setitem(sys.modules, "gdown", None)
    with pytest.raises(UserError, match=r"pip install 'ccop-hub\[hub\]'"):
        fetch_drive("gdrive:abc")


def secret_url(server: FileServer, path: str = "weights.pth") -> str:
    return server.url(f"{path}?token=SECRET").replace("http://", "http://me:SECRET@")


def test_no_secret_of_an_address_is_written_or_told(
    server: FileServer,
    tensors: dict[str, Tensor],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    server.content = buffer.getvalue()
    found = resolve(secret_url(server))
    assert (found.name, found.arch) == (server.url(), "resnet18")
    assert main(["convert", secret_url(server), "--to", "safetensors", "--out", str(tmp_path / "converted")]) == 0
    assert main(["info", secret_url(server)]) == 0
    for status in (403, 404, 500):
        server.plan = [status] * 10
        with pytest.raises(UserError) as raised:
            fetch_url(secret_url(server, f"{status}.pth"))
        assert "SECRET" not in str(raised.value)
        assert "weights" in str(raised.value) or str(status) in str(raised.value)
    told = capsys.readouterr()
    assert "SECRET" not in told.out + told.err + caplog.text
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert written
    assert all(b"SECRET" not in path.read_bytes() and "SECRET" not in str(path) for path in written)


def test_user_and_password_are_sent(server: FileServer) -> None:
    fetch_url(secret_url(server))
    assert server.authorizations == ["Basic bWU6U0VDUkVU"]


def test_a_redirect_to_an_unsafe_address_is_refused(server: FileServer) -> None:
    server.plan = [302]
    server.headers = {"Location": "http://example.invalid/a.pth?SECRET"}
    with pytest.raises(UserError, match=r"http://example\.invalid/a\.pth is not an https address") as raised:
        fetch_url(server.url())
    assert "SECRET" not in str(raised.value)


def test_a_redirect_takes_no_password_along(server: FileServer) -> None:
    server.plan = [302]
    server.headers = {"Location": server.url("elsewhere.pth")}
    assert fetch_url(secret_url(server)).read_bytes() == CONTENT
    assert server.authorizations == ["Basic bWU6U0VDUkVU", None]


def test_a_file_larger_than_the_disk_is_refused_before_it_is_written(server: FileServer) -> None:
    server.claimed = str(1 << 59)
    with pytest.raises(UserError, match=f"has {1 << 59} bytes, but .* has only"):
        fetch_url(server.url())


@pytest.mark.parametrize("claimed", ["many", "-5", "1e3", "\u00b2"])
def test_a_length_that_is_no_number_is_no_trouble(server: FileServer, claimed: str) -> None:
    server.claimed = claimed
    assert fetch_url(server.url()).read_bytes() == CONTENT


@pytest.mark.parametrize("span", ["bytes 7-9/10", "bytes x-y/z", "", "items 0-1/2"])
def test_a_server_that_resumes_elsewhere_is_asked_anew(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, span: str
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    server.plan = [-1000]
    server.spans = [span]
    assert fetch_url(server.url()).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [
        ("7", 7, 7),
        (None, 0, 0),
        ("soon", 0, 0),
        ("-3", 0, 0),
        ("\u00b2", 0, 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0, 0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 1e9, 1e12),
    ],
)
def test_retry_after(header: str | None, low: float, high: float) -> None:
    assert low <= download.retry_after(header) <= high


def test_names_in_the_cache(server: FileServer) -> None:
    for path in ("..", "record.json", ".lock", "a%2F..%2Fb", "x" * 300, "", "%00"):
        file = fetch_url(server.url(path))
        assert file.read_bytes() == CONTENT
        assert file.parent.parent == downloads_folder()


def test_a_server_that_never_answers_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered = threading.Event(), threading.Event()

    def hanging(*_: object, **__: object) -> None:
        asked.set()
        answered.wait(30)
        raise TimeoutError

    monkeypatch.setattr("socket.create_connection", hanging)
    monkeypatch.setattr("ccop_hub.sources.reachability.WAIT", 0.2)
    monkeypatch.setattr("urllib.request.OpenerDirector.open", lambda *_: pytest.fail("asked"))
    with pytest.raises(UserError, match=r"cannot reach host\.invalid \(no answer within 0\.2 s\)"):
        fetch_url("https://host.invalid/a.pth")
    answered.set()
    assert asked.is_set()
