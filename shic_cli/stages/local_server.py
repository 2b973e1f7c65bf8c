"""A web server for one user on this machine: it listens on 127.0.0.1 alone, and answers only who knows the
token in its address and comes from its own page. It opens no file by a name that a request gives."""

from __future__ import annotations

import errno
import hmac
import json
import logging
import secrets
import socketserver
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from shic_cli.base.errors import InputError, ShicError

log = logging.getLogger("shic")

HOST = "127.0.0.1"
LARGEST = 64 << 20  # bytes that a request may hold
PATIENCE = 30.0  # seconds for a request to come in


@dataclass(frozen=True)
class Request:
    """What was asked: the part of the path behind the route's name, the query and the body."""

    rest: str
    query: dict[str, str]
    body: bytes


@dataclass(frozen=True)
class Answer:
    """What is answered: status, content type and content."""

    status: int
    kind: str
    content: bytes

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Answer:
        """A JSON value."""
        return cls(status, "application/json", json.dumps(value).encode())

    @classmethod
    def html(cls, text: str) -> Answer:
        """A page."""
        return cls(200, "text/html; charset=utf-8", text.encode())

    @classmethod
    def refusal(cls, status: int, error: str, hint: str = "") -> Answer:
        """Why not, and the next step."""
        return cls.json({"error": error, "hint": hint}, status)


Routes = dict[tuple[str, str], Callable[[Request], Answer]]


class LocalServer(ThreadingHTTPServer):
    """Answers by `routes`: (method, first part of the path) -> function. InputError if the port is taken."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, port: int, routes: Routes) -> None:
        self.routes, self.token = routes, secrets.token_urlsafe(24)
        try:
            super().__init__((HOST, port), Handler)
        except (OSError, OverflowError) as error:
            taken = getattr(error, "errno", None) == errno.EADDRINUSE
            fact = "is taken by another program" if taken else f"can't be listened on ({error})"
            raise InputError(
                f"port {port}: {fact}", "give another one with --port, or --port 0 for any"
            ) from error

    def server_bind(self) -> None:
        """Bind without looking up the machine's name, which may ask the network."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]

    @property
    def origin(self) -> str:
        """The server's own address."""
        return f"http://{HOST}:{self.server_port}"

    @property
    def url(self) -> str:
        """The address to open, with the token."""
        return f"{self.origin}/?token={self.token}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away while it is answered is no error; the rest is logged."""
        log.debug("a request failed", exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """One connection: checks who asks, and hands over to the route."""

    server: LocalServer  # type: ignore[assignment]
    timeout = PATIENCE
    server_version, sys_version = "shic", ""

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        address = urlsplit(self.path)
        query = dict(parse_qsl(address.query))
        name, _, rest = address.path.removeprefix("/").partition("/")
        answer = self._refusal(query) or self._body_refusal()
        if answer is None:
            route = self.server.routes.get((self.command, name))
            answer = Answer.refusal(404, "there is no such page", "open the address that shic printed")
            if route is not None:
                answer = self._ask(route, Request(rest, query, self._body()))
        self._send(answer)

    def _refusal(self, query: dict[str, str]) -> Answer | None:
        """Why this request is refused, None if it is not: another host, another page, a wrong token."""
        own = {f"{HOST}:{self.server.server_port}", f"localhost:{self.server.server_port}"}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in own:
            return Answer.refusal(
                403, "the request is for another host", "open the address that shic printed"
            )
        if origin is not None and origin not in {f"http://{host}" for host in own}:
            return Answer.refusal(
                403, "the request comes from another page", "open the address that shic printed"
            )
        token = self.headers.get("X-Shic-Token") or query.get("token", "")
        if not hmac.compare_digest(token.encode(), self.server.token.encode()):
            return Answer.refusal(403, "the token is missing or wrong", "open the address that shic printed")
        return None

    def _body_refusal(self) -> Answer | None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers or not length.isascii() or not length.isdigit():
            return Answer.refusal(411, "the request does not say its length", "send Content-Length")
        if len(length) > 18 or int(length) > LARGEST:
            return Answer.refusal(413, f"it is larger than {LARGEST >> 20} MB", "make the picture smaller")
        return None

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def _ask(self, route: Callable[[Request], Answer], request: Request) -> Answer:
        try:
            return route(request)
        except ShicError as error:
            return Answer.refusal(400, error.message, error.hint)
        except Exception as error:
            log.error("%s failed: %s: %s", self.path.partition("?")[0], type(error).__name__, error)
            return Answer.refusal(500, "the server met an error", "the terminal where shic runs says more")

    def _send(self, answer: Answer) -> None:
        self.close_connection = True  # the body of what was refused is not read
        self.send_response(answer.status)
        for name, value in (
            ("Content-Type", answer.kind),
            ("Content-Length", str(len(answer.content))),
            ("Cache-Control", "no-store"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("X-Frame-Options", "DENY"),
            ("Connection", "close"),
        ):
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(answer.content)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            log.debug("the browser went away")

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s", format % args)
