"""YAML 1.2 (core schema) to plain values, with the position of every key and value.

PyYAML reads 1.1, where `2:4` is 124 seconds, `no` is false and `1e-3` is text; only its scanner, parser and composer
are used here, with our own rules for plain scalars and our own construction. Everything that costs more than it says
(depth, aliases, size after expansion) is bounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import yaml
from yaml.composer import Composer
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from compressor.errors import Place, RecipeError
from compressor.plain_yaml import BOOL, FLOAT, INT, NULL, PLAIN_RULES

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_DEPTH: Final = 16
MAX_ALIASES: Final = 50
MAX_VALUES: Final = 5000
"""After aliases are expanded."""
MAX_DIGITS: Final = 40

Path = tuple[str | int, ...]
"""Keys and list positions from the top, such as ("steps", 0, "ratio")."""


@dataclass(frozen=True)
class Document:
    """A value and the places of its parts."""

    value: Any
    keys: Mapping[Path, Place]
    """Path of an entry -> the place of its key (of its value, in a list)."""
    values: Mapping[Path, Place]
    errors: tuple[RecipeError, ...] = ()
    """Mistakes that left a value to go on with: repeated keys and numbers that are none."""
    noun: str = "recipe"
    """What messages call it."""
    schema: Mapping[str, Any] = field(default_factory=dict)
    """The JSON Schema that it is held against."""


@dataclass
class _Builder:
    file: str
    lines: list[str]
    noun: str
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    errors: list[RecipeError] = field(default_factory=list)

    def place(self, mark: yaml.Mark) -> Place:
        source = self.lines[mark.line] if mark.line < len(self.lines) else ""
        return Place(self.file, mark.line + 1, mark.column + 1, source)

    def build(self, node: yaml.Node, path: Path) -> Any:
        place = self.values[path] = self.place(node.start_mark)
        if len(self.values) > MAX_VALUES or len(path) > MAX_DEPTH:
            raise RecipeError("the aliases of this file expand to too much", place=place, hint="write the values out")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self._entry(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)  # the composer knows no fourth kind
        return self._scalar(node, place)

    def _entry(self, node: yaml.Node, path: Path) -> Any:
        self.keys[path] = self.place(node.start_mark)
        return self.build(node, path)

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            place = self.place(key_node.start_mark)
            key = self._scalar(key_node, place) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                self._mistake("a key must be text", place, "put it in quotes if it is meant as it stands")
                continue
            if key in mapping:
                first = self.keys[*path, key].line
                self._mistake(f"the key `{key}` is repeated", place, f"it is first given on line {first}")
                continue
            self.keys[*path, key] = place
            mapping[key] = self.build(value_node, (*path, key))
        return mapping

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        text: str = node.value
        if node.tag == NULL:
            return None
        if node.tag == BOOL:
            return text.lower() == "true"
        if node.tag in (INT, FLOAT):
            return self._number(text, node.tag, place)
        return text

    def _number(self, text: str, tag: str, place: Place) -> int | float:
        if len(text) > MAX_DIGITS:
            self._mistake(f"a number of {len(text)} characters", place, f"at most {MAX_DIGITS} are read")
            return 0
        if tag == INT:
            # YAML 1.2 reads 010 as ten, which int(text, 0) refuses
            return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
        if not math.isfinite(number):
            self._mistake(f"`{text}` is not a finite number", place, "leave the key out for no bound")
        return number

    def _mistake(self, message: str, place: Place, hint: str) -> None:
        self.errors.append(RecipeError(message, place=place, hint=hint))


class _Composer(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML's front half; refuses tags, and bounds depth and aliases while it reads."""

    def __init__(self, text: str, builder: _Builder) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._builder = builder
        self._depth = 0
        self._aliases = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        place = self._builder.place(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise RecipeError(f"more than {MAX_ALIASES} aliases", place=place, hint="write the values out")
        elif event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            raise RecipeError(f"a {self._builder.noun} has no tags, found `{tag}`", place=place, hint="remove the tag")
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise RecipeError(f"nested more than {MAX_DEPTH} levels deep", place=place)
        node: yaml.Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


for _tag, _pattern, _first in PLAIN_RULES:
    _Composer.add_implicit_resolver(_tag, _pattern, _first)


def parse(text: str, file: str, noun: str = "recipe") -> Document | None:
    """Read one YAML document; None if there is nothing but comments.

    Args:
        text: The whole text.
        file: What to call it in errors.
        noun: What the document is.

    Raises:
        RecipeError: Not valid YAML, or beyond the bounds of this module.
    """
    builder = _Builder(file, text.splitlines(), noun)
    try:
        composer = _Composer(text, builder)
        composer.get_event()  # type: ignore[no-untyped-call] # the start of the stream
        if composer.check_event(yaml.StreamEndEvent):
            return None
        root = composer.compose_document()
        if not composer.check_event(yaml.StreamEndEvent):
            second = composer.peek_event()  # type: ignore[no-untyped-call]
            place = builder.place(second.start_mark)
            raise RecipeError("a second document begins here", place=place, hint=f"a {noun} is one YAML document")
    except ReaderError as error:
        raise _bad_character(error, text, builder) from None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(error, builder) from None
    assert root is not None  # a document has a node, an empty one where nothing is
    value = builder.build(root, ())
    return Document(value, builder.keys, builder.values, tuple(builder.errors), noun)


def _bad_character(error: ReaderError, text: str, builder: _Builder) -> RecipeError:
    before = text[: error.position]
    line = before.count("\n") + 1
    column = error.position - (before.rfind("\n") + 1) + 1
    code = error.character if isinstance(error.character, int) else ord(error.character)
    message = f"the control character U+{code:04X} is not allowed in YAML"
    return RecipeError(message, place=Place(builder.file, line, column), hint="is this a text file?")


def _syntax_error(error: yaml.MarkedYAMLError, builder: _Builder) -> RecipeError:
    mark = error.problem_mark or error.context_mark
    place = builder.place(mark) if mark is not None else Place(builder.file)
    problem = error.problem or "unreadable"
    if "'\\t'" in problem:
        return RecipeError("a tab, but YAML needs spaces", place=place, hint="indent with spaces")
    context = f" {error.context}" if error.context else ""
    return RecipeError(f"not valid YAML:{context}{',' if context else ''} {problem}", place=place)
