"""Serves the page: a few addresses below a token, and one to which results are sent."""

from __future__ import annotations

import json
import re
import secrets
import socket
import threading
from hmac import compare_digest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from compressor.demo import results
from compressor.errors import CompressorError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from compressor.demo.contents import Contents
    from compressor.demo.results import PhoneResult

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".wasm": "application/wasm",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self' blob:; style-src 'self'; "
    "connect-src 'self'; img-src data:"
)
_SECONDS: Final = 30.0
"""A connection that says nothing for so long is closed."""
MOST_CONNECTIONS: Final = 32
"""At one time; a page opens six."""
_ANY: Final = "0.0.0.0"


class DemoServer(ThreadingHTTPServer):
    """Answers until `shutdown`."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(
        self, folder: Path, shown: Contents, told: Callable[[PhoneResult], None], *, host: str = _ANY, port: int = 0
    ) -> None:
        """Listen.

        Args:
            folder: Of the run, into which results are written.
            shown: What the page shows.
            told: Called with each result.
            host: Address to listen on; every one of this machine by default, so that a phone reaches it.
            port: A free one by default.

        Raises:
            UsageError: That address cannot be listened on.
        """
        self.folder, self.shown, self.told = folder, shown, told
        self.token = secrets.token_urlsafe(12)
        self.writing = threading.Lock()
        self._free = threading.BoundedSemaphore(MOST_CONNECTIONS)
        try:
            super().__init__((host, port), _Answer)
        except OSError as error:
            raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}", hint="give another --port") from error

    def verify_request(self, request: object, client_address: object) -> bool:
        """Whether there is room for one more: anybody in the network can open connections and say nothing."""
        return self._free.acquire(blocking=False)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection, and make room."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: a connection that breaks is no fault, and a stranger writes nothing on this terminal."""

    @property
    def address(self) -> str:
        """What the phone opens."""
        host, port = self.server_address[:2]
        return f"http://{_reachable() if host == _ANY else str(host)}:{port}/{self.token}/"


class _Answer(BaseHTTPRequestHandler):
    server: DemoServer
    timeout = _SECONDS
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "compressor", ""

    def do_GET(self) -> None:
        """A file of the page or of the run."""
        asked = self._below_token()
        if asked == "facts.json":
            self._send(200, json.dumps(self.server.shown.facts()).encode(), ".json")
            return
        path = None if asked is None else self.server.shown.addresses.get(asked)
        if path is None or path.is_symlink() or not path.is_file():
            self._send(404, b"there is nothing here\n")
            return
        self._send(200, path.read_bytes(), path.suffix)

    def do_POST(self) -> None:
        """A result."""
        length = self.headers.get("Content-Length", "")
        if self._below_token() != "results":
            self._refuse(404, b"there is nothing here\n")
        elif not re.fullmatch("[0-9]{1,9}", length) or int(length) > results.MOST_BYTES:
            self._refuse(413, b"too large\n")
        else:
            self._take(self.rfile.read(int(length)))

    def _take(self, content: bytes) -> None:
        try:
            result = results.checked(content, {one.file for one in self.server.shown.files})
        except ValueError:
            self._send(400, b"this is no result of this page\n")
            return
        try:
            with self.server.writing:
                results.keep(self.server.folder, result)
        except CompressorError as error:
            self._send(507, f"{error.message}\n".encode())
            return
        self.server.told(result)
        self._send(200, b"kept\n")

    def _below_token(self) -> str | None:
        """The address behind the token; None without it."""
        token, slash, rest = self.path.lstrip("/").partition("/")
        right = compare_digest(token.encode(), self.server.token.encode())
        return rest.partition("?")[0] if right and slash else None

    def _refuse(self, status: int, content: bytes) -> None:
        """Without reading what was sent."""
        self.close_connection = True
        self._send(status, content)

    def _send(self, status: int, content: bytes, suffix: str = ".txt") -> None:
        self.send_response(status)
        self.send_header("Content-Type", _TYPES.get(suffix, "application/octet-stream"))
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Content-Security-Policy", _POLICY)
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Nothing: the terminal shows results."""


def _reachable() -> str:
    """This machine's address in its network; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])
