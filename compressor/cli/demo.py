"""`compressor demo`: a page on which a phone runs the files of a finished run, and sends its timing back."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressor.cli.arguments import RunArgument
from compressor.cli.output import emit, say

if TYPE_CHECKING:
    from compressor.demo.results import PhoneResult


def demo(
    folder: RunArgument,
    host: Annotated[
        str, typer.Option("--host", help="Address to listen on; 127.0.0.1 for this computer alone.")
    ] = "0.0.0.0",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Port. [default: a free one]", show_default=False)
    ] = 0,
) -> None:
    """Show a page that a phone in the same network opens: it runs the files there and sends back how fast they are.

    The phone needs no cable, no app and no account. What it sends is kept in DIR, in `on-phones.json`. Only somebody
    who has the address can open the page; it ends with this command (Ctrl-C).
    """
    from compressor.demo.contents import contents
    from compressor.demo.server import DemoServer
    from compressor.runtimes.environments import npm_packages

    runtime = npm_packages("web") / "onnxruntime-web" / "dist"
    shown = contents(Path(folder), runtime)
    with DemoServer(Path(folder), shown, _tell, host=host, port=port) as server:
        emit(code(server.address))
        emit(server.address)
        say("open this address on a phone in the same network; Ctrl-C ends it")
        server.serve_forever()


def _tell(result: "PhoneResult") -> None:
    say(result.summary)


def code(address: str) -> str:
    """The address as a QR code of half blocks, light on dark or dark on light: readers take both."""
    import io

    import segno

    drawn = io.StringIO()
    segno.make(address, error="l").terminal(drawn, compact=True, border=2)
    return drawn.getvalue()
