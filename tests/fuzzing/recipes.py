"""Recipes: random ones by the schema, with one value out of it, or with bytes damaged."""

from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING, Any

from compressor.plain_yaml import dump
from compressor.recipe import load, names
from tests.fuzzing.bytes import damaged
from tests.fuzzing.values import ESCAPE, spoilt
from tests.fuzzing.verdict import Case, of_command

if TYPE_CHECKING:
    import random
    from pathlib import Path

_HEAD = "schema_version: 1\nname: t\n"
_STEPS = "steps:\n  - {method: magnitude, prune: units, ratio: 0.5}\n"
_EXPORTS = "exports:\n  - format: onnx\n"
_WHOLE = _HEAD + _STEPS + _EXPORTS

MUST_REFUSE: dict[str, str] = {
    "empty": "",
    "a list": "[1, 2]",
    "no steps": _HEAD + _EXPORTS,
    "another version": _WHOLE.replace("schema_version: 1", "schema_version: 2"),
    "a key twice": _WHOLE + "name: u\n",
    "a second document": _WHOLE + "---\n" + _WHOLE,
    "a tag": _WHOLE.replace("name: t", "name: !!python/object/apply:os.system [ls]"),
    "deep": _HEAD + "steps: " + "[" * 3000 + "]" * 3000 + "\n",
    "aliases": "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a]\nc: [*b, *b, *b, *b, *b]\n" * 20,
    "thousands of keys": _WHOLE + "".join(f"key{number}: 1\n" for number in range(4000)),
    "a very long line": _WHOLE.replace("name: t", "name: " + "x" * 100_000),
    "too long": _WHOLE + "#" * 200_000,
    "an unknown method": _WHOLE.replace("magnitude", "magnitud"),
    "an unknown method that fills clipboards": _WHOLE.replace("magnitude", f'"{ESCAPE}"'),
    "an unknown option": _WHOLE.replace("ratio: 0.5", "ratoi: 0.5"),
    "a ratio above 1": _WHOLE.replace("0.5", "1.5"),
    "a ratio in percent": _WHOLE.replace("0.5", "50%"),
    "a ratio that is NaN": _WHOLE.replace("0.5", ".nan"),
    "two exports of one name": _WHOLE + "  - format: onnx\n",
    "an export called original": _WHOLE + "    name: original\n",
    "two exports that differ in case": _WHOLE + "    name: A\n  - {format: onnx, name: a}\n",
    "a name that leads elsewhere": _WHOLE + "    name: ../x\n",
    "a broken expression": _WHOLE.replace("ratio: 0.5", 'ratio: 0.5, targets: ["re:(["]'),
    "an expression that takes forever": _WHOLE.replace("ratio: 0.5", 'ratio: 0.5, targets: ["re:(a+)+$"]'),
    "sizes out of range": _WHOLE.replace("steps:\n", "steps:\n  - {method: retrain, epochs: 1000000000000}\n"),
    "a size with a unit": _WHOLE + "limits: {file_bytes: 600KB}\n",
    "tabs": _WHOLE.replace("  - ", "\t- "),
    "a control character": _WHOLE.replace("name: t", "name: t\x00"),
}


def listed(what: str, folder: Path) -> Case:
    """One of the list."""
    file = folder / "recipe.yaml"
    file.write_text(MUST_REFUSE[what])
    return Case(what, "refused", lambda: of_command("validate", file))


def case(draw: random.Random, folder: Path) -> Case:
    """A recipe in a file of `folder`."""
    file = folder / "recipe.yaml"
    kind = draw.choice(("good", "listed", "listed", "spoilt", "spoilt", "spoilt", "damaged", "damaged", "set"))
    if kind == "listed":
        return listed(draw.choice(list(MUST_REFUSE)), folder)
    name = draw.choice(names())
    recipe = load(name).resolved()
    options = ("--json",) if draw.random() < 0.3 else ()
    if kind == "good":
        file.write_text(dump(recipe))
        return Case(f"{name} as it is", "accepted", lambda: of_command("validate", file, *options))
    if kind == "set":
        place, value = draw.choice(_overrides(recipe, draw))
        return Case(f"--set {place[:40]}", "either", lambda: of_command("validate", name, "--set", f"{place}={value}"))
    if kind == "damaged":
        what, content = damaged(dump(recipe).encode(), draw)
        file.write_bytes(content)
        return Case(f"{name} with {what}", "either", lambda: of_command("validate", file, *options))
    changed = copy.deepcopy(recipe)
    what = spoilt(changed, draw)
    file.write_text(json.dumps(changed) if draw.random() < 0.5 else _dumped(changed))
    return Case(f"{name} with {what}", "either", lambda: of_command("validate", file, *options))


def _dumped(value: Any) -> str:
    try:
        return dump(value)
    except Exception:  # what YAML cannot hold is written as JSON, which is YAML too
        return json.dumps(value)


def _overrides(recipe: dict[str, Any], draw: random.Random) -> list[tuple[str, str]]:
    from tests.fuzzing.values import STRANGE, places

    place = ".".join(map(str, draw.choice(list(places(recipe)))))
    value = json.dumps(draw.choice(STRANGE), ensure_ascii=False)
    return [(place, value), (f"{place}.a", value), (place + ".a" * 2000, "1"), (place, ""), (f"{place}[0]", value)]
