"""What MkDocs asks of this repository: the order of pages, pages that lie outside `docs/`, and formulas as MathML.

An entry `FOLDER/*` of the navigation stands for the pages of a folder, in the order in which its README, or else that
of `docs/`, links to them, without those that have an entry of their own. MkDocs reports a page without a link.

READMEs of recipes and samples, and files that pages link to, are part of the site under the path that they have in the
repository, so every relative link works in both places and `mkdocs build --strict` finds the dead ones.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latex2mathml.converter import convert
from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

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


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Replace `FOLDER/*` by pages."""
    assert config.nav is not None
    config.nav = _with_pages(config.nav, set(_entries(config.nav)))
    return config


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


def _entries(nav: Any) -> Iterator[str]:
    """The pages that a part of the navigation names."""
    if isinstance(nav, str):
        yield nav
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _entries(part)


def _with_pages(nav: Any, named: Collection[str]) -> Any:
    if isinstance(nav, dict):
        return {title: _with_pages(part, named) for title, part in nav.items()}
    if isinstance(nav, list):
        parts = ([part] if not isinstance(part, str) else _pages(part, named) for part in nav)
        return [_with_pages(part, named) for several in parts for part in several]
    return nav


def _pages(entry: str, named: Collection[str]) -> list[str]:
    """The pages that an entry stands for: itself, or those of a folder."""
    folder = entry.removesuffix("/*")
    if folder == entry:
        return [entry]
    place = next(base / folder for base in (DOCS, ROOT) if (base / folder).is_dir())
    index = place / "README.md"
    targets = _targets(index if index.is_file() else DOCS / "README.md")
    pages = [_place(target) for target in targets if target.suffix == ".md" and target.is_relative_to(place)]
    return [page for page in dict.fromkeys(pages) if page not in named]


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
