"""What MkDocs asks of this repository: pages that lie outside `docs/`, and formulas as MathML.

READMEs of recipes and samples, and files that pages link to, are part of the site under the path that they have in the
repository, so every relative link works in both places and `mkdocs build --strict` finds the dead ones.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING

from latex2mathml.converter import convert
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OUTSIDE = (
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
    "recipes/README.md",
    "samples/README.md",
    "samples/*/README.md",
)
"""Pages of the site that lie outside `docs/`, as globs from the repository's root."""

_LINK = re.compile(r"\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside `docs/` and every file that a page links to."""
    outside = {path for pattern in OUTSIDE for path in ROOT.glob(pattern)}
    pages = [*DOCS.rglob("*.md"), *outside]
    linked = {target for page in pages for target in _targets(page) if not target.is_relative_to(DOCS)}
    for path in sorted(outside | linked):
        name = path.relative_to(ROOT).as_posix()
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links between `docs/` and the rest of the repository to where the site has them."""
    assert page.file.abs_src_path is not None
    here = Path(page.file.abs_src_path)

    def moved(link: re.Match[str]) -> str:
        target = _target(here, link[1])
        if not target.exists():
            return link[0]  # MkDocs warns of it
        up = "../" * page.file.src_uri.count("/")
        return f"]({up}{_place(target)}{link[2] or ''})"

    return _LINK.sub(moved, markdown)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Draw formulas as MathML, which browsers show without a script."""
    return _FORMULA.sub(
        lambda formula: convert(html.unescape(formula[2].strip()), "block" if formula[1] == "div" else "inline"),
        content,
    )


def _targets(page: Path) -> list[Path]:
    targets = (_target(page, link[1]) for link in _LINK.finditer(page.read_text(encoding="utf-8")))
    return [target for target in targets if target.is_file()]


def _target(page: Path, link: str) -> Path:
    """The file that a link of a page names; of a folder its README."""
    target = (page.parent / link).resolve()
    return target / "README.md" if target.is_dir() else target


def _place(path: Path) -> str:
    """Where the site has a file of the repository."""
    return path.relative_to(DOCS if path.is_relative_to(DOCS) else ROOT).as_posix()
