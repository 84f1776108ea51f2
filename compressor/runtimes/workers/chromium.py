"""A headless Chromium, spoken to over a pipe in the DevTools protocol: no port, no driver, no further package.

The `web` runtime, tests and the pictures of the docs use it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

Scheme = Literal["light", "dark"]
_QUIET: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
_WITHOUT_GPU: Final = ("--disable-gpu",)
_WITH_GPU: Final = ("--enable-unsafe-webgpu", "--enable-features=Vulkan")
"""WebGPU on Linux too, where a browser that is not told so has none."""
_PROGRAMS: Final = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
_ON_3_AND_4: Final = """
import fcntl, os, sys
pipes = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
for number, pipe in enumerate(pipes, 3):
    os.dup2(pipe, number)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""The browser reads commands from file descriptor 3 and answers on 4."""
_TALLEST: Final = 16_000
"""Of a picture in pixels; Chromium draws no more of a page at once."""


def find() -> str | None:
    """The path of a Chromium or Chrome; None if there is none."""
    return next(filter(None, map(shutil.which, _PROGRAMS)), None)


class Browser:
    """`with Browser(find()) as browser:` one page after the other, in a window of any size."""

    def __init__(self, program: str, *, gpu: bool = False) -> None:
        """Start the program with an empty profile, and with WebGPU if `gpu`."""
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)  # it may still be written to
        take, self._to = os.pipe()
        self._from, give = os.pipe()
        arguments = [
            program,
            *_QUIET,
            *(_WITH_GPU if gpu else _WITHOUT_GPU),
            f"--user-data-dir={self._profile.name}",
            "about:blank",
        ]
        self._process = subprocess.Popen(
            [sys.executable, "-c", _ON_3_AND_4, str(take), str(give), *arguments],
            pass_fds=(take, give),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(take)
        os.close(give)
        self._buffer, self._number, self._session = b"", 0, ""

    def __enter__(self) -> Browser:
        """The browser, with one empty page."""
        try:
            targets = self._call("Target.getTargets")["targetInfos"]
            page = next(target["targetId"] for target in targets if target["type"] == "page")
            self._session = self._call("Target.attachToTarget", targetId=page, flatten=True)["sessionId"]
            self._call("Page.enable")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it and remove its profile."""
        self._end()

    def _end(self) -> None:
        self._process.terminate()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
        self._profile.cleanup()

    def open(
        self,
        page: Path | str,
        *,
        width: int,
        height: int,
        scheme: Scheme = "light",
        scripts: bool = True,
        scale: float = 1.0,
        mobile: bool = False,
    ) -> None:
        """Show a file, or what is at a URL, in a window of so many CSS pixels, each of `scale` pixels a side."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": mobile}
        self._call("Emulation.setDeviceMetricsOverride", **metrics)
        self._call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self._call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self._call("Page.navigate", url=page if isinstance(page, str) else page.resolve().as_uri())
        self._wait_for("Page.loadEventFired")

    @property
    def version(self) -> str:
        """Such as `Chrome/130.0.6723.58`."""
        return str(self._call("Browser.getVersion")["product"]).removeprefix("Headless")

    def evaluate(self, expression: str) -> Any:
        """What a JavaScript expression gives on the page."""
        given = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in given:
            raise RuntimeError(f"{expression}: {_said(given['exceptionDetails'])}")
        return given["result"].get("value")

    def picture(self, *, whole: bool) -> bytes:
        """A PNG of the window, or of the whole page."""
        import base64

        arguments: dict[str, Any] = {"captureBeyondViewport": whole}
        if whole:
            size = self._call("Page.getLayoutMetrics")["cssContentSize"]
            height = min(size["height"], _TALLEST)
            arguments["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": height, "scale": 1}
        return base64.b64decode(self._call("Page.captureScreenshot", format="png", **arguments)["data"])

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    def _wait_for(self, event: str) -> None:
        while self._read().get("method") != event:
            pass

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            block = os.read(self._from, 1 << 16)
            if not block:
                raise RuntimeError("the browser has ended")
            self._buffer += block
        message, _, self._buffer = self._buffer.partition(b"\0")
        read: dict[str, Any] = json.loads(message)
        return read


def _said(details: dict[str, Any]) -> str:
    """What an exception of a page says, without its stack."""
    text = details.get("exception", {}).get("description") or details["text"]
    return str(text).split("\n    at ", 1)[0]
