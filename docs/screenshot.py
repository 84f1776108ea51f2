"""Pictures of HTML pages with a headless Chromium.

    python docs/screenshot.py runs/quickstart/report.html --all pictures
    python docs/screenshot.py runs/quickstart/report.html --picture docs/images/report.png

The first writes whole pages at two widths, light and dark; the second the first screen, which the README shows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from compressor.runtimes.workers.chromium import Browser, find  # noqa: E402

if TYPE_CHECKING:
    from compressor.runtimes.workers.chromium import Scheme

WIDTHS: Final = (1400, 390)
SCHEMES: Final[tuple[Scheme, ...]] = ("light", "dark")


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description="Take pictures of HTML pages with a headless Chromium.")
    parser.add_argument("pages", type=Path, nargs="+")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--picture", type=Path, help="a .png file for the first screen of the first page")
    which.add_argument("--all", type=Path, metavar="DIR", help="a folder; each page whole, in all widths and schemes")
    parser.add_argument("--size", default="1100,860", help="width and height of --picture [default: 1100,860]")
    options = parser.parse_args()
    program = find()
    if program is None:
        sys.exit("no Chromium found; on Debian: apt-get install chromium")
    with Browser(program) as browser:
        if options.all is None:
            width, height = map(int, options.size.split(","))
            browser.open(options.pages[0], width=width, height=height)
            options.picture.write_bytes(browser.picture(whole=False))
            return
        options.all.mkdir(parents=True, exist_ok=True)
        for page in options.pages:
            take_all(browser, page, options.all)


def take_all(browser: Browser, page: Path, folder: Path) -> None:
    """Write the whole page at every width and in every scheme."""
    for width in WIDTHS:
        for scheme in SCHEMES:
            browser.open(page, width=width, height=900, scheme=scheme)
            picture = folder / f"{page.resolve().parent.name}-{page.stem}-{width}-{scheme}.png"
            picture.write_bytes(browser.picture(whole=True))
            wide = browser.evaluate("document.documentElement.scrollWidth")
            print(f"{picture}: {'nothing is cut' if wide <= width else f'{wide - width} px are cut on the right'}")


if __name__ == "__main__":
    main()
