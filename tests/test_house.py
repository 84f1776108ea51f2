"""The house keeps its order: no import circles, no borrowed private names, no large or loose files."""

from __future__ import annotations

import ast
import re
from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from pathlib import Path

import pytest

from compressor.formats import EXPORTERS
from compressor.methods import METHODS
from compressor.nn.converted import target

ROOT = Path(__file__).parents[1]
ROOMS = ("compressor", "exporters")
SCRIPTS = ("benchmarks", "samples", "docs")
MAX_LINES, USUAL_LINES = 350, 250
MAX_LARGE_FILES = 35
MAX_LOOSE_MODULES = 8


def modules(rooms: tuple[str, ...] = ROOMS) -> dict[str, Path]:
    """Name of every module of the two packages, or of other folders of the root -> its file."""
    paths = chain.from_iterable((ROOT / room).rglob("*.py") for room in rooms)
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path: Path, names: dict[str, Path]) -> set[str]:
    """The modules of ours that a file imports anywhere in it: inside functions, for its types, and by name, too."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found |= {part.value for part in node.args if isinstance(part, ast.Constant)}
        elif isinstance(node, ast.ImportFrom) and node.module:
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {part if part in names else node.module for part in parts}
    return found & names.keys()


def test_no_module_imports_itself_by_way_of_others():
    names = modules((*ROOMS, "benchmarks", "tests"))
    assert circle({name: imported(path, names) - {name} for name, path in names.items()}) == []


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One way from a module back to itself, if there is one."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_module_is_private():
    private = [name for name in modules() if re.search(r"\._(?!_main__)", name)]
    assert private == []


def test_no_private_name_of_another_module_is_used():
    names = modules()
    borrowed = [f"{name}:{line}: {used}" for name, path in names.items() for line, used in _borrowed(tree(path), names)]
    assert borrowed == []


def _borrowed(module: ast.Module, names: dict[str, Path]) -> list[tuple[int, str]]:
    """Names with a leading underscore that come from another module of ours: imported, or reached as `module._name`."""
    found: list[tuple[int, str]] = []
    aliases: set[str] = set()
    for node in ast.walk(module):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ROOMS:
            found += [(node.lineno, alias.name) for alias in node.names if is_private(alias.name)]
            aliases |= {alias.asname or alias.name for alias in node.names if f"{node.module}.{alias.name}" in names}
    for node in ast.walk(module):
        attribute = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
        if attribute and node.value.id in aliases and is_private(node.attr):
            found.append((node.lineno, f"{node.value.id}.{node.attr}"))
    return found


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_few_modules_lie_loose_in_the_tool():
    loose = [path.name for path in (ROOT / "compressor").glob("*.py") if path.name != "__init__.py"]
    assert len(loose) <= MAX_LOOSE_MODULES, loose


def test_no_file_is_long():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}
    assert sum(count > USUAL_LINES for count in lines.values()) <= MAX_LARGE_FILES


def test_options_are_asked_and_not_searched():
    searched = [name for name, path in modules().items() if "getattr(options" in path.read_text(encoding="utf-8")]
    assert searched == []


def test_scripts_import_names_that_exist():
    """No type checker reads these, and no test runs all of them."""
    names = modules()
    missing = []
    for path in chain.from_iterable((ROOT / folder).rglob("*.py") for folder in SCRIPTS):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in ROOMS:
                known = defined(tree(names[node.module])) if node.module in names else set()
                wanted = [alias.name for alias in node.names if f"{node.module}.{alias.name}" not in names]
                missing += [f"{path.relative_to(ROOT)}:{node.lineno}: {name}" for name in wanted if name not in known]
    assert missing == []


def defined(module: ast.Module) -> set[str]:
    """Names that a module defines or imports outside of its functions and classes."""
    found: set[str] = set()
    nodes: list[ast.AST] = [module]
    for node in nodes:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        else:
            nodes += ast.iter_child_nodes(node)
    return found


LISTS = {
    "compressor.methods": "compressor.methods",
    "compressor.render.sections": "compressor.render.sections",
    "compressor.nn.converted": None,
    "exporters": None,
}
"""Folder of parts that people add -> the one module that imports them; None if a map names them as text."""
ALSO_USED = {
    "compressor.methods.magnitude", "compressor.methods.retrain", "compressor.methods.random_graph",
    "compressor.render.sections.time", "compressor.render.sections.probes", "compressor.nn.converted.lssl",
    "exporters.onnx",
}  # fmt: skip
"""Parts that other features are made of: searches and studies prune and retrain, converters read ONNX."""


def parts(folder: str) -> set[str]:
    """Modules of a folder that one of its lists has."""
    words = {
        "compressor.methods": METHODS,
        "compressor.nn.converted": target.WORDS,
        "exporters": EXPORTERS,
        "compressor.render.sections": {name.rpartition(".")[2] for name in modules() if name.startswith(f"{folder}.")},
    }[folder]
    return {f"{folder}.{word}" for word in words}


@pytest.mark.parametrize(("folder", "home"), LISTS.items())
def test_whoever_adds_a_part_lists_it_in_one_place(folder, home):
    names = modules()
    users: dict[str, set[str]] = {part: set() for part in parts(folder) - ALSO_USED}
    assert users.keys() <= names.keys()
    for name, path in names.items():
        for part in imported(path, names) & users.keys() - {name}:
            users[part].add(name)
    beside = {part: found - {home, "compressor.render.sections.summary"} for part, found in users.items()}
    assert {part: found for part, found in beside.items() if found} == {}
    assert all(home in found for found in users.values()) == (home is not None)


def test_the_word_of_a_conversion_target_stands_in_its_list_and_its_own_file():
    own = {f"compressor.nn.converted.{word}" for word in target.WORDS}
    quoted = re.compile(rf"[\"'`]({'|'.join(target.WORDS)})[\"'`]")
    found = {name: set(quoted.findall(path.read_text(encoding="utf-8"))) for name, path in modules().items()}
    elsewhere = {name: words for name, words in found.items() if words and name not in own}
    assert elsewhere.pop("compressor.nn.converted.target") == set(target.WORDS)
    assert elsewhere.pop("compressor.methods.convert") == {"fsmn"}  # the one that can look ahead
    assert elsewhere == {}
