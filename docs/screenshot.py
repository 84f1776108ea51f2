"""Pictures of HTML pages with a headless Chromium.

    python docs/screenshot.py runs/quickstart/report.html docs/images/report.png

writes the first screen of a report, which the README shows.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def main() -> None:
    """Take the picture."""
    parser = argparse.ArgumentParser(description="Take a picture of an HTML page with a headless Chromium.")
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path, help="a .png file")
    parser.add_argument("--size", default="1100,860", help="width and height of the window [default: 1100,860]")
    options = parser.parse_args()
    take(options.page, options.picture, options.size)


def take(page: Path, picture: Path, size: str) -> None:
    """Write a picture of a page's first screen.

    Raises:
        SystemExit: There is no Chromium, or it wrote nothing.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium found; on Debian: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        arguments = [f"--user-data-dir={profile}", f"--window-size={size}", f"--screenshot={picture.resolve()}"]
        subprocess.run([browser, *_QUIET, *arguments, page.resolve().as_uri()], check=True, capture_output=True)
    if not picture.is_file():
        sys.exit(f"{browser} wrote no picture")


if __name__ == "__main__":
    main()
