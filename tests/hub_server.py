"""A small Hugging Face Hub on the loopback: answers what `huggingface_hub` and `datasets` ask for data sets.

It has no storage of its own: a test hands it the content of each commit. It can be gated, private, renamed,
and break a download off.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

TOKEN = "hf_good"
"""The token of an account that sees private data sets."""


@dataclass
class Repo:
    """A data set's repository."""

    branches: dict[str, str] = field(default_factory=dict)
    """Branch or tag -> commit."""
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    """Commit -> path -> content."""
    gated: bool = False
    private: bool = False
    disabled: bool = False

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        """Add a commit with these files to a branch. Returns its name."""
        name = hashlib.sha1(repr([branch, sorted(files.items()), len(self.commits)]).encode()).hexdigest()
        self.commits[name] = dict(files)
        self.branches[branch] = name
        return name


class Hub:
    """The data sets, and what was asked."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.renamed: dict[str, str] = {}
        """Old name -> new name."""
        self.asked: list[str] = []
        """Method and path of every request."""
        self.sent: dict[str, int] = {}
        """Bytes sent of each file."""
        self.ranges: list[str] = []
        """Every Range header of a GET."""
        self.cut: dict[str, int] = {}
        """File -> bytes after which its next download breaks off. Each works once."""
        self.silent: set[str] = set()
        """Files of which only the first half is sent, and then nothing while the connection stays open."""
        self.status: int | None = None
        """Answer everything with this status."""
        self.speak = threading.Event()
        """Ends the silence."""
        self.address = ""

    def add(self, name: str, files: Mapping[str, bytes], **fields: Any) -> Repo:
        """A new data set with one commit on `main`."""
        self.repos[name] = Repo(**fields)
        self.repos[name].commit(files)
        return self.repos[name]


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that answers at `address` while the block runs."""
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        hub.speak.set()
        server.shutdown()
        server.server_close()


_API = re.compile(
    r"/api/datasets/(?P<repo>[^/]+?(?:/[^/]+?)?)(?:/(?P<what>revision|tree|paths-info|refs)(?:/(?P<rest>.*))?)?"
)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: Any) -> None: ...

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        self.hub.asked.append(f"{self.command} {self.path}")
        if self.hub.status is not None:
            return self._error(self.hub.status, "", "out of order")
        api = _API.fullmatch(url.path)
        if api is not None:
            # A name without an owner is followed by a word of the API.
            return self._api(api["repo"], api["what"], api["rest"] or "", parse_qs(url.query), body)
        file = re.fullmatch(r"/datasets/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<path>.+)", url.path)
        if file is not None:
            return self._file(file["repo"], unquote(file["rev"]), unquote(file["path"]))
        self._error(404, "", "no such page")

    def _repo(self, name: str, rest: str) -> Repo | None:
        """The repository, if this account sees it; answers otherwise."""
        if name in self.hub.renamed:
            new = self.hub.renamed[name]
            self._send(307, b"", {"Location": self.hub.address + self.path.replace(name, new, 1)})
            return None
        token = (self.headers.get("authorization") or "").removeprefix("Bearer ")
        if token and token != TOKEN:
            self._error(401, "", "Invalid credentials in Authorization header")
            return None
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and token != TOKEN):
            self._error(404 if token else 401, "RepoNotFound", "Repository not found")
            return None
        if repo.disabled:
            self._error(403, "", "Access to this resource is disabled.")
            return None
        return repo

    def _commit(self, repo: Repo, revision: str) -> str | None:
        found = repo.branches.get(revision) or (revision if revision in repo.commits else None)
        if found is None:
            self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return found

    def _api(self, name: str, what: str | None, rest: str, query: Mapping[str, list[str]], body: bytes) -> None:
        repo = self._repo(name, rest)
        if repo is None:
            return None
        if what == "refs":
            branches = [{"name": b, "ref": f"refs/heads/{b}", "targetCommit": c} for b, c in repo.branches.items()]
            return self._json({"branches": branches, "converts": [], "tags": []})
        revision, _, path = rest.partition("/")
        commit = self._commit(repo, unquote(revision) or "main")
        if commit is None:
            return None
        files = repo.commits[commit]
        if what in (None, "revision"):
            siblings = [{"rfilename": file} for file in files]
            return self._json({
                "_id": "1", "id": name, "sha": commit, "private": repo.private, "gated": "auto" if repo.gated else False,
                "disabled": False, "tags": [], "downloads": 0, "likes": 0, "siblings": siblings,
            })  # fmt: skip
        if what == "paths-info":
            form = parse_qs(body.decode()) if b"=" in body[:20] and not body.startswith(b"{") else json.loads(body)
            return self._json([_entry(file, files[file]) for file in form["paths"] if file in files])
        return self._tree(files, unquote(path), query.get("recursive", ["false"])[0].lower() == "true")

    def _tree(self, files: Mapping[str, bytes], below: str, recursive: bool) -> None:
        start = f"{below}/" if below else ""
        listed: dict[str, dict[str, Any]] = {}
        for file, content in files.items():
            if not file.startswith(start):
                continue
            folders = file[len(start) :].split("/")[:-1]
            for depth in range(len(folders) if recursive else min(1, len(folders))):
                folder = start + "/".join(folders[: depth + 1])
                listed[folder] = {"type": "directory", "oid": "0" * 40, "size": 0, "path": folder}
            if recursive or not folders:
                listed[file] = _entry(file, content)
        if below and not listed:
            return self._error(404, "EntryNotFound", f"{below} does not exist")
        self._json(list(listed.values()))

    def _file(self, name: str, revision: str, path: str) -> None:
        repo = self._repo(name, path)
        commit = None if repo is None else self._commit(repo, revision)
        if repo is None or commit is None:
            return None
        known = {"X-Repo-Commit": commit}
        if repo.gated:
            token = self.headers.get("authorization")
            return self._error(403 if token else 401, "GatedRepo", "Access is restricted", known)
        content = repo.commits[commit].get(path)
        if content is None:
            return self._error(404, "EntryNotFound", "Entry not found", known)
        etag = hashlib.sha256(content).hexdigest()
        known |= {
            "ETag": f'"{etag}"',
            "X-Linked-Size": str(len(content)),
            "X-Linked-ETag": f'"{etag}"',
            "Accept-Ranges": "bytes",
        }
        status, first, last = 200, 0, len(content)
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""):
            status, first = 206, int(wanted[1])
            last = int(wanted[2]) + 1 if wanted[2] else len(content)
            known["Content-Range"] = f"bytes {first}-{last - 1}/{len(content)}"
            self.hub.ranges.append(f"{path} {wanted[0]}")
        self._send(status, content[first:last], known, path)

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str, more: Mapping[str, str] | None = None) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message} if code else {"X-Error-Message": message}
        self._send(status, json.dumps({"error": message}).encode(), {**headers, **(more or {})})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], path: str | None = None) -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, quote(value, safe=" /:\"'=%.-+?&()") if key == "Location" else value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if path is not None:
            cut = self.hub.cut.pop(path, None)
            if cut is not None:
                body = body[:cut]
                self.close_connection = True
            self.hub.sent[path] = self.hub.sent.get(path, 0) + len(body)
            if path in self.hub.silent:
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                self.hub.speak.wait(60)
                self.close_connection = True
                return
        self.wfile.write(body)
        self.wfile.flush()


def _entry(path: str, content: bytes) -> dict[str, Any]:
    return {"type": "file", "oid": hashlib.sha1(content).hexdigest(), "size": len(content), "path": path}
