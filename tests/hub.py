"""An imitation of the few addresses of the hub that `shic models pull` and `push` ask, for tests."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A server on this machine; `repositories` maps a name to its files, `faults` says what goes wrong,
    `asked` what was requested.

    Faults by repository: `gated`, `private`, `html`, `slow`, `huge`, `readonly`. By file: `once` (breaks off
    half-way, the first time), `fails` (status 500), `stalls` (half of it, then nothing).
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.faults: dict[str, str] = {}
        self.asked: list[tuple[str, str, str | None]] = []
        self.tokens: set[str | None] = set()
        hub = self

        class Handler(_Handler):
            owner = hub

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def fetched(self) -> list[str]:
        """The files that were sent, or begun to be."""
        return [file for method, file, _ in self.asked if method == "GET" and not file.startswith("api/")]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: Hub

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_POST(self) -> None:
        """What a push asks: to make a repository, to check a card, how to send files, and to commit them."""
        path, body = (
            self.path.partition("?")[0].lstrip("/"),
            self.rfile.read(int(self.headers["Content-Length"])),
        )
        self.owner.tokens.add(self.headers.get("Authorization"))
        self.owner.asked.append(("POST", path, None))
        if path == "api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            if self.owner.faults.get(name) == "readonly":
                self._send(403, b"{}", {})
                return
            self.owner.repositories.setdefault(name, {})
            self._send(200, json.dumps({"url": f"{self.owner.address}/{name}"}).encode(), {})
        elif path == "api/validate-yaml":
            self._send(200, b'{"errors": [], "warnings": []}', {"Content-Type": "application/json"})
        elif path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self._send(200, json.dumps({"files": modes}).encode(), {"Content-Type": "application/json"})
        else:
            repository = path.removeprefix("api/models/").removesuffix("/commit/main")
            for record in map(json.loads, body.splitlines()):
                if record["key"] == "file":
                    content = base64.b64decode(record["value"]["content"])
                    self.owner.repositories[repository][record["value"]["path"]] = content
            url = f"{self.owner.address}/{repository}/commit/{COMMIT}"
            self._send(200, json.dumps({"commitUrl": url, "commitOid": COMMIT}).encode(), {})

    def _answer(self, body: bool) -> None:
        path = self.path.partition("?")[0].lstrip("/")
        if path.startswith("api/") and not path.startswith(
            "api/models/"
        ):  # newer versions of huggingface_hub ask for more
            self._send(404, b"", {})
            return
        self.owner.tokens.add(self.headers.get("Authorization"))
        if path.startswith("api/models/"):
            self.owner.asked.append((self.command, path, None))
            self._describe(path.removeprefix("api/models/"))
            return
        repository, _, file = path.partition("/resolve/")
        file = file.partition("/")[2]
        self.owner.asked.append((self.command, file, self.headers.get("Range")))
        if self.owner.faults.get(repository) == "gated":
            self._send(403, b"", {"X-Error-Code": "GatedRepo"})
        else:
            self._file(file, self.owner.repositories[repository][file], body)

    def _describe(self, repository: str) -> None:
        fault = self.owner.faults.get(repository)
        if fault == "slow":
            time.sleep(3)
        if fault == "html":
            self._send(200, b"<html>log in to the network</html>", {})
        elif repository not in self.owner.repositories or fault == "private":
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
        else:
            files = self.owner.repositories[repository]
            sizes = {name: 10**18 if fault == "huge" else len(content) for name, content in files.items()}
            siblings = [{"rfilename": name, "size": size, "blobId": "0" * 40} for name, size in sizes.items()]
            found = {
                "id": repository,
                "modelId": repository,
                "sha": COMMIT,
                "siblings": siblings,
                "tags": [],
                "private": False,
            }
            self._send(200, json.dumps(found).encode(), {"Content-Type": "application/json"})

    def _file(self, name: str, content: bytes, body: bool) -> None:
        fault, start = self.owner.faults.get(name), 0
        headers = {
            "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
        }
        if self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        if fault == "fails" and body:
            self._send(500, b"", {})
        elif fault in ("once", "stalls") and body:
            if fault == "once":
                del self.owner.faults[name]
            self._send(200, content[: len(content) // 2], headers, length=len(content))
            self.wfile.flush()
            if fault == "stalls":
                time.sleep(3)
            self.close_connection = True
        else:
            self._send(
                206 if start else 200, content[start:] if body else b"", headers, length=len(content) - start
            )

    def _send(self, status: int, content: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for key, value in {
            **headers,
            "Content-Length": str(len(content) if length is None else length),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)
