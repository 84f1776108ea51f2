"""ONNX Runtime Web: reads `.onnx` in a page of a headless Chromium, by WebAssembly or by WebGPU (`webgpu.py`).

The page comes from a server on this machine, under a path that nobody can guess, with the headers that isolate it
(Cross-Origin-Opener-Policy and Cross-Origin-Embedder-Policy): without them a browser gives it no threads and a
coarse clock.
"""

import json
import os
import secrets
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE)]

import chromium  # type: ignore[import-not-found]  # noqa: E402
import serve  # type: ignore[import-not-found]  # noqa: E402

PACKAGE = Path(os.environ["COMPRESSOR_WEB"]) / "node_modules" / "onnxruntime-web"
_TYPES = {".mjs": "text/javascript", ".wasm": "application/wasm", ".html": "text/html"}
_MOST_BYTES = 1 << 31
"""Of what the page sends back."""
_READY = "new Promise(ready => { const ask = () => globalThis.ready ? ready() : setTimeout(ask, 5); ask(); })"
_ADAPTER = """navigator.gpu?.requestAdapter().then(
  (adapter) => adapter ? [adapter.info.vendor, adapter.info.architecture].filter(Boolean).join(" ") : "nothing")"""
MEASURES_MEMORY = False
PROVIDER = os.environ.get("COMPRESSOR_WEB_PROVIDER", "wasm")


class _Site(ThreadingHTTPServer):
    """What the page loads, and the arrays on their way to it and back."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.token = secrets.token_urlsafe(16)
        self.model = None
        self.inputs = self.outputs = b""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}/{self.token}/"

    def found(self, name):
        """The content of an address, or the file that holds it."""
        if name == "inputs":
            return self.inputs
        if name == "model":
            return self.model
        if name == "":
            return HERE / "web.html"
        folder, _, file = name.partition("/")
        if Path(file).name != file:
            return None
        if folder == "ort":
            return PACKAGE / "dist" / file
        return self.model.parent / file if folder == "weights" and file in weights_of(self.model) else None


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        site = self.server
        start = f"/{site.token}/"
        found = site.found(self.path[len(start) :]) if self.path.startswith(start) else None
        if isinstance(found, Path):
            kind = _TYPES.get(found.suffix, "application/octet-stream")
            found = found.read_bytes() if found.is_file() else None
        else:
            kind = "application/octet-stream"
        self._send(404 if found is None else 200, found or b"", kind)

    def do_POST(self):
        length = int(self.headers.get("Content-Length", 0))
        if self.path != f"/{self.server.token}/outputs" or length > _MOST_BYTES:
            self._send(404, b"")
            return
        self.server.outputs = self.rfile.read(length)
        self._send(200, b"")

    def _send(self, status, content, kind="text/plain"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Nothing: what is written to the standard error is for errors."""


def weights_of(model):
    """Names of files beside an ONNX file that hold its weights, by the name that exporters give them."""
    return [path.name for path in (model.with_name(f"{model.name}.data"),) if path.is_file()]


def _provider():
    """What computes, in words: of WebGPU also the graphics processor, which may be one in software."""
    if PROVIDER == "wasm":
        return "WebAssembly"
    _browser.open(_site.address, width=800, height=600)
    return f"WebGPU on {_browser.evaluate(_ADAPTER)}"


def _package_version():
    return json.loads((PACKAGE / "package.json").read_text())["version"]


_site = _Site()
_browser = chromium.Browser(chromium.find(), gpu=PROVIDER == "webgpu").__enter__()
VERSION = f"ONNX Runtime Web {_package_version()} ({_provider()}) in {_browser.version}"


class File:
    """A file in a page of its own: threads are chosen once a page."""

    def __init__(self, path, threads, description):
        _site.model = Path(path)
        _browser.open(_site.address, width=800, height=600)
        _browser.evaluate(_READY)
        self._threads = threads
        self._ask("load", threads, weights_of(_site.model), PROVIDER)

    def run(self, arrays):
        _site.inputs = serve.packed({}, arrays)
        self._ask("run")
        return serve.unpacked(_site.outputs)[1]

    def timed(self, arrays, warmup, runs):
        """Nanoseconds of each run, by the clock of the browser."""
        _site.inputs = serve.packed({}, arrays)
        return [round(one * 1e6) for one in self._ask("timed", warmup, runs)]

    def _ask(self, function, *arguments):
        try:
            return _browser.evaluate(f"{function}({', '.join(map(json.dumps, arguments))})")
        except RuntimeError as error:
            raise RuntimeError(str(error).partition(": ")[2]) from None
