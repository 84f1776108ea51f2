"""Values of JSON and YAML that no author meant, and where in a document one can be put."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

ESCAPE = "name\x1b]52;c;aGFja2Vk\x07\u202e\x9b2J"
"""Fills the clipboard of a terminal that obeys it, and turns what follows around."""
STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**30, -(10**30), 0.5, 1e308, -0.0),
    *("", ESCAPE, "x" * 300, "../../etc/passwd", "/dev/zero", "é", "NaN", "1e999", "<script>alert(1)</script>"),
    *([], {}, [[]], [None], {"": 0}, {"a": {"b": []}}, list(range(300))),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every part of a document but the whole."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*path, key)
        yield from places(part, (*path, key))


def spoilt(document: Any, draw: random.Random) -> str:
    """Change one part of a document, in place; gives how."""
    path = draw.choice(list(places(document)))
    owner = document
    for key in path[:-1]:
        owner = owner[key]
    where = ".".join(map(str, path))
    match draw.choice(("value", "value", "value", "delete", "double", "rename")):
        case "delete":
            del owner[path[-1]]
            return f"`{where}` deleted"
        case "double" if isinstance(owner, list):
            owner.append(owner[path[-1]])
            return f"`{where}` doubled"
        case "rename" if isinstance(owner, dict):
            owner[draw.choice(("", ESCAPE, "x" * 300, "__class__"))] = owner.pop(path[-1])
            return f"`{where}` renamed"
    owner[path[-1]] = draw.choice(STRANGE)
    return f"`{where}` = {str(owner[path[-1]])[:30]!r}"
