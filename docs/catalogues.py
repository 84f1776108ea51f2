"""The lists in two READMEs: the table of recipes, from the recipes, and the links to pages of concepts, from the pages.

What a README lists keeps its place; what it does not list yet comes last. So whoever adds a recipe or a page adds one
file and runs `python docs/generate.py`.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
_ROW = re.compile(r"^\| \[([\w-]+)\]\([\w-]+\.yaml\) \|.*\n", re.MULTILINE)
_GAIN = re.compile(r"^# (smaller file|faster): (.+)$", re.MULTILINE)
_CONCEPTS = re.compile(r"^(\| understand a method \| .+) \|$", re.MULTILINE)


def recipes(root: Path = ROOT) -> str:
    """`recipes/README.md` with a row for every recipe: its description, and the comments at its head of what it buys.

    Raises:
        ValueError: A recipe has no such comments.
    """
    folder = root / "recipes"
    text = (folder / "README.md").read_text(encoding="utf-8")
    listed = {name: number for number, name in enumerate(_ROW.findall(text))}
    names = sorted(
        (path.stem for path in folder.glob("*.yaml")), key=lambda name: (listed.get(name, len(listed)), name)
    )
    rows = "".join(_row(name, (folder / f"{name}.yaml").read_text(encoding="utf-8")) for name in names)
    first = _ROW.search(text)
    assert first is not None, "recipes/README.md has no table of recipes"
    return text[: first.start()] + rows + _ROW.sub("", text[first.start() :])


def _row(name: str, recipe: str) -> str:
    gains = dict(_GAIN.findall(recipe))
    if len(gains) != 2:
        raise ValueError(f"recipes/{name}.yaml: say `# smaller file: ...` and `# faster: ...` below its first line")
    description = yaml.safe_load(recipe)["description"].removesuffix(".")
    return f"| [{name}]({name}.yaml) | {description} | {gains['smaller file']} | {gains['faster']} |\n"


def index(root: Path = ROOT) -> str:
    """`docs/README.md` with a link to every page of `docs/concepts/`, by its title if it is new."""
    text = (root / "docs" / "README.md").read_text(encoding="utf-8")
    pages = sorted((root / "docs" / "concepts").glob("*.md"))
    missing = [page for page in pages if f"(concepts/{page.name})" not in text]
    titles = [page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ") for page in missing]
    links = "".join(f", [{title}](concepts/{page.name})" for title, page in zip(titles, missing, strict=True))
    return _CONCEPTS.sub(lambda row: f"{row[1]}{links} |", text)
