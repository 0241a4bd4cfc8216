"""A minimal Hugging Face Hub on loopback: repositories, commits, large files, and faults on demand."""

from __future__ import annotations

import base64
import collections
import dataclasses
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_writer"
READER = "hf_reader"
LARGE = 10_000
"""Size in bytes from which files go to the large-file store."""


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclasses.dataclass
class Commit:
    """A snapshot: path -> content, and whether each file is stored as a large file."""

    oid: str
    files: dict[str, bytes]
    large: set[str]


@dataclasses.dataclass
class Repository:
    private: bool
    commits: list[Commit] = dataclasses.field(default_factory=list)
    branches: dict[str, str] = dataclasses.field(default_factory=dict)

    def at(self, revision: str) -> Commit | None:
        oid = self.branches.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == oid), None)


@dataclasses.dataclass
class Fault:
    """A faulty response: a status, or 0 to drop the connection, optionally `after` some bytes of the body."""

    status: int
    after: int = 0
    headers: dict[str, str] = dataclasses.field(default_factory=dict)


class HubServer:
    """The server and its state.

    Attributes:
        repositories: `org/name` -> repository.
        store: SHA-256 -> large file.
        requests: (method, kind) of every request, in order.
        faults: kind of request -> faulty responses, each used once, in order.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.store: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: dict[str, list[Fault]] = collections.defaultdict(list)
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def count(self, kind: str) -> int:
        return sum(found == kind for _, found in self.requests)

    def commit(self, repo: str, branch: str, files: dict[str, bytes], large: set[str]) -> Commit:
        repository = self.repositories[repo]
        oid = hashlib.sha1(f"{repo} {branch} {len(repository.commits)}".encode()).hexdigest()
        commit = Commit(oid, files, large)
        repository.commits.append(commit)
        repository.branches[branch] = oid
        return commit

    def create(self, repo: str, private: bool = False) -> None:
        self.repositories[repo] = Repository(private)
        self.commit(repo, "main", {".gitattributes": b"*.safetensors filter=lfs\n"}, set())


_ROUTES = [
    ("POST", "validate", r"/api/validate-yaml"),
    ("POST", "create", r"/api/repos/create"),
    ("POST", "branch", r"/api/models/(?P<repo>[^/]+/[^/]+)/branch/(?P<revision>[^/]+)"),
    ("POST", "preupload", r"/api/models/(?P<repo>[^/]+/[^/]+)/preupload/(?P<revision>[^/]+)"),
    ("POST", "commit", r"/api/models/(?P<repo>[^/]+/[^/]+)/commit/(?P<revision>[^/]+)"),
    ("GET", "info", r"/api/models/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/]+)"),
    ("GET", "info", r"/api/models/(?P<repo>[^/]+/[^/]+)"),
    ("POST", "batch", r"/(?P<repo>[^/]+/[^/]+)\.git/info/lfs/objects/batch"),
    ("PUT", "put", r"/store/(?P<oid>[0-9a-f]{64})"),
    ("POST", "stored", r"/stored/(?P<oid>[0-9a-f]{64})"),
    ("HEAD", "resolve", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    ("GET", "resolve", r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)"),
    ("GET", "content", r"/store/(?P<oid>[0-9a-f]{64})"),
    ("HEAD", "content", r"/store/(?P<oid>[0-9a-f]{64})"),
]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        routes = ((kind, re.fullmatch(pattern, path)) for method, kind, pattern in _ROUTES if method == self.command)
        kind, found = next(((kind, found) for kind, found in routes if found is not None), ("", None))
        if found is None:
            self._answer(404, {"error": f"no route {self.command} {path}"})
            return
        with self.hub.lock:
            self.hub.requests.append((self.command, kind))
            waiting = self.hub.faults[kind]
            fault = waiting.pop(0) if waiting else None
        if fault is not None and not fault.after:
            self._fail(fault)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        getattr(self, f"_{kind}")(body, fault=fault, **found.groupdict())

    def _fail(self, fault: Fault) -> None:
        self.close_connection = True
        if fault.status:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self._answer(fault.status, {"error": f"answered {fault.status} on request"}, fault.headers)
        else:
            self.connection.close()

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)

    # --- permissions

    def _token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def _may_write(self) -> bool:
        if self._token() == TOKEN:
            return True
        self._answer(403 if self._token() == READER else 401, {"error": "not allowed"})
        return False

    def _repository(self, repo: str) -> Repository | None:
        repository = self.hub.repositories.get(repo)
        if repository is not None and (not repository.private or self._token() in (TOKEN, READER)):
            return repository
        self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        return None

    def _commit_at(self, repo: str, revision: str) -> Commit | None:
        repository = self._repository(repo)
        if repository is None:
            return None
        commit = repository.at(revision)
        if commit is None:
            self._answer(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        return commit

    # --- API

    def _validate(self, body: bytes, **_: Any) -> None:
        self._answer(200, {"warnings": [], "errors": []})

    def _create(self, body: bytes, **_: Any) -> None:
        if not self._may_write():
            return
        asked = json.loads(body)
        repo = f"{asked.get('organization') or 'user'}/{asked['name']}"
        if repo in self.hub.repositories:
            self._answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"})
            return
        self.hub.create(repo, asked.get("private") or asked.get("visibility") == "private")
        self._answer(200, {"url": f"{self.hub.url}/{repo}"})

    def _branch(self, body: bytes, repo: str, revision: str, **_: Any) -> None:
        repository = self._repository(repo) if self._may_write() else None
        if repository is not None:
            known = revision in repository.branches
            repository.branches.setdefault(revision, repository.branches["main"])
            self._answer(409 if known else 200, {"error": "Reference already exists"} if known else {})

    def _info(self, body: bytes, repo: str, revision: str = "main", **_: Any) -> None:
        commit = self._commit_at(repo, revision)
        if commit is not None:
            siblings = [{"rfilename": path} for path in commit.files]
            self._answer(200, {"id": repo, "modelId": repo, "sha": commit.oid, "siblings": siblings, "tags": []})

    def _preupload(self, body: bytes, repo: str, revision: str, **_: Any) -> None:
        commit = self._commit_at(repo, revision) if self._may_write() else None
        if commit is None:
            return
        answers = []
        for file in json.loads(body)["files"]:
            path, large = file["path"], file["size"] >= LARGE
            entry = {"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False}
            if path in commit.files:
                content = commit.files[path]
                entry["oid"] = hashlib.sha256(content).hexdigest() if path in commit.large else git_oid(content)
            answers.append(entry)
        self._answer(200, {"files": answers})

    def _batch(self, body: bytes, repo: str, **_: Any) -> None:
        if not self._may_write():
            return
        objects = []
        for wanted in json.loads(body)["objects"]:
            entry: dict[str, Any] = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.store:
                entry["actions"] = {
                    "upload": {"href": f"{self.hub.url}/store/{wanted['oid']}", "header": {}},
                    "verify": {"href": f"{self.hub.url}/stored/{wanted['oid']}", "header": {}},
                }
            objects.append(entry)
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _put(self, body: bytes, oid: str, **_: Any) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            self._answer(400, {"error": "digest"})
            return
        self.hub.store[oid] = body
        self._answer(200, {})

    def _stored(self, body: bytes, oid: str, **_: Any) -> None:
        self._answer(200 if oid in self.hub.store else 404, {})

    def _commit(self, body: bytes, repo: str, revision: str, **_: Any) -> None:
        commit = self._commit_at(repo, revision) if self._may_write() else None
        if commit is None:
            return
        files, large = dict(commit.files), set(commit.large)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.hub.store:
                    self._answer(400, {"error": f"{value['path']} was not uploaded"})
                    return
                files[value["path"]] = self.hub.store[value["oid"]]
                large.add(value["path"])
        made = self.hub.commit(repo, revision, files, large)
        self._answer(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{made.oid}", "commitOid": made.oid})

    def _resolve(self, body: bytes, repo: str, revision: str, path: str, **_: Any) -> None:
        commit = self._commit_at(repo, revision)
        if commit is None:
            return
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            self._answer(404, {"error": "Entry not found"}, {**headers, "X-Error-Code": "EntryNotFound"})
            return
        content = commit.files[path]
        if path not in commit.large:
            self._answer(200, content, {**headers, "ETag": f'"{git_oid(content)}"'})
            return
        oid = hashlib.sha256(content).hexdigest()
        headers |= {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        # A different host name, as for the real Hub's large files: the client uses this response's headers.
        self._answer(302, b"", {**headers, "Location": f"{self.hub.url}/store/{oid}".replace("127.0.0.1", "localhost")})

    def _content(self, body: bytes, oid: str, fault: Fault | None = None, **_: Any) -> None:
        content = self.hub.store[oid]
        start = int(found[1]) if (found := re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{oid}"')
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault is not None:
            self.wfile.write(content[start : start + fault.after])
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()
            return
        self.wfile.write(content[start:])
