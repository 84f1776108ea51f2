"""Writes from the code: `docs/reference/`, the picture of the architecture, schema and catalogue of recipes.

    python docs/generate.py            # write the files
    python docs/generate.py --check    # exit with 1 if a file is not what the code says; what the checks run

Commands and options come from the Typer application, recipe words and options from the models that read a recipe, the
lists in READMEs from the files that they list (`catalogues`).
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import architecture
import catalogues
import typer

from compressor.cli import EXIT_CODES, app
from compressor.methods import METHODS
from compressor.nn.converted.recurrent import TARGETS
from compressor.nn.converted.target import DESCRIPTIONS
from compressor.onnx_graphs import targets
from compressor.recipe import schema
from compressor.recipe.words import alternatives, expected, resolve
from compressor.render import frontiers
from compressor.studies.search import known

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parents[1]
_WIDTH = 64
_WRITTEN = "<!-- Written by `python docs/generate.py`; change the code, then run it again. -->"


def main() -> None:
    """Write the files, or compare them with the code."""
    parser = argparse.ArgumentParser(description="Write docs/reference/ and what else is made of the code.")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a file differs, and write nothing")
    check = parser.parse_args().check
    stale = {name: text for name, text in written().items() if _differs(ROOT / name, text)}
    if check and stale:
        sys.exit(f"not what the code says: {', '.join(stale)}; run `python docs/generate.py`")
    for name, text in stale.items():
        (ROOT / name).write_text(text, encoding="utf-8")
        print(f"written: {name}")


def written() -> Mapping[str, str]:
    """Path -> the file as the code has it now."""
    schema_of_recipes = json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"
    return {
        **{f"docs/{name}": text for name, text in pages().items()},
        "recipes/recipe.schema.json": schema_of_recipes,
        "recipes/README.md": catalogues.recipes(),
        "docs/README.md": catalogues.index(),
    }


def pages() -> Mapping[str, str]:
    """Path below `docs/` -> the file as the code has it now."""
    return {
        "reference/commands.md": _page("Commands", *_commands()),
        "reference/recipe.md": _page("Recipe words", *_recipe()),
        "reference/exports.md": _page("Export options", *_exports()),
        "reference/conversions.md": _page("Targets of convert", *_conversions()),
        "reference/targets.md": _page("What fails in which runtime", *_targets()),
        "reference/frontiers.md": _page("What searches found", *_frontiers()),
        "reference/exit-codes.md": _page("Exit codes", *_exit_codes()),
        "images/architecture.svg": architecture.svg(),
    }


def _frontiers() -> Iterator[str]:
    yield (
        "The files that searches found on the samples and that no other beats: what to expect for a model like yours.\n"
        "`compressor frontiers` shows them, `compressor frontiers show NAME --recipe POINT` writes a recipe, and\n"
        "`compressor search --start NAME` tries these first. Losses are by `evaluate`; a frontier was chosen by the\n"
        "same data, so they are slightly optimistic. [How searches compare](../results/search.md)."
    )
    for name in known.names():
        found = known.read(name)
        table = [frontiers.HEADER, ("---",) * len(frontiers.HEADER), *frontiers.rows(found)]
        lines = "\n".join(f"| {' | '.join(row)} |" for row in table)
        told = "\n".join(f"- {line}" for line in frontiers.conditions(found))
        yield f"## {name}\n\n{found.model[0].upper()}{found.model[1:]}.\n\n{lines}\n\n{told}"


def _conversions() -> Iterator[str]:
    yield (
        "What each target of [`convert`](recipe.md#method-convert) puts in for a recurrent layer, its options, and\n"
        "the states that a [step file](../concepts/step-files.md) carries for one sample and one layer of the usual\n"
        f"options with {_WIDTH} inputs and outputs. What is lost: [Which conversion](../guides/which-conversion.md)."
    )
    rows = []
    for word, layer in TARGETS.items():
        described = DESCRIPTIONS[word]
        states = layer.from_fields(layer.usual(_WIDTH)).initial_states()
        sizes = "; ".join(f"`{name}` {'×'.join(map(str, value.shape[1:]))}" for name, value in states)
        rows.append((f"`{word}`", described.what, ", ".join(f"`{name}`" for name in described.options), sizes))
    yield _table(("`to`", "what it is", "its own options", "states of a step"), rows)


def _targets() -> Iterator[str]:
    yield (
        "Nodes of an ONNX graph that a runtime does not load, or computes wrong, as this project measured it: what\n"
        "`compressor check` refuses. Conditions of accelerators are in [Targets](../concepts/targets.md)."
    )
    for name in targets.names():
        target = targets.get(name)
        if target.fails:
            rows = [f"| {failure.nodes} | {failure.happens} |" for failure in target.fails]
            if target.largest_opset is not None:
                rows.append(f"| any, in an opset above {target.largest_opset} | the last that was seen to work |")
            measured = target.source.removesuffix(", see docs/concepts/targets.md")
            yield "\n".join(
                [
                    f"## {target.title}\n\n{measured[0].upper()}{measured[1:]}.\n",
                    "| node | what happens |",
                    "|---|---|",
                    *rows,
                ]
            )


def _differs(path: Path, text: str) -> bool:
    return not path.is_file() or path.read_text(encoding="utf-8") != text


def _page(title: str, *blocks: str) -> str:
    return "\n\n".join([f"# {title}", _WRITTEN, *blocks]) + "\n"


# --- commands ---


def _commands() -> Iterator[str]:
    root = typer.Context(app.command(), info_name="compressor")
    yield (
        "Data goes to standard output, everything else to standard error. `--json` gives a command's result as JSON. "
        "`compressor --install-completion` sets up completion in the shell."
    )
    leaves = list(_leaves(root))
    yield _table(("command", ""), [(_linked(context), _first_line(context)) for context in leaves])
    for context in leaves:
        yield from _command(context)


def _leaves(context: typer.Context) -> Iterator[typer.Context]:
    """Contexts of all commands below this one, in the order of the help."""
    children = getattr(context.command, "commands", None)
    if children is None:
        yield context
        return
    for name, command in children.items():
        yield from _leaves(typer.Context(command, info_name=name, parent=context))


def _command(context: typer.Context) -> Iterator[str]:
    usage = context.command.get_usage(context).removeprefix("Usage: ")
    yield f"## {context.command_path}"
    yield f"```text\n{' '.join(usage.split())}\n```"
    yield context.command.help or ""
    records = [
        (parameter.param_type_name == "argument", parameter.get_help_record(context))
        for parameter in context.command.params
    ]
    rows = [record for is_argument, record in records if record and is_argument]
    rows += [record for is_argument, record in records if record and not is_argument]
    if rows:
        yield _table(("argument or option", ""), [(f"`{name}`", _prose(text)) for name, text in rows])


def _linked(context: typer.Context) -> str:
    path = context.command_path
    return f"[`{path}`](#{path.replace(' ', '-')})"


def _first_line(context: typer.Context) -> str:
    return context.command.short_help or (context.command.help or "").partition("\n")[0]


# --- recipes ---


def _recipe() -> Iterator[str]:
    document = schema()
    yield (
        "What a recipe holds: `compressor recipes schema` writes the same as JSON Schema for editors, "
        "`compressor methods show NAME` shows a method in the terminal. [The shipped recipes](../../recipes/README.md) "
        "are examples, [Choose a recipe](../guides/choose-a-recipe.md) is the guide."
    )
    yield "## Keys of a recipe"
    yield _options(document)
    yield "## limits"
    limits = document["$defs"]["Limits"]
    yield _prose(limits["description"])
    yield _options(limits)
    for word, method in METHODS.items():
        options = document["$defs"][method.__name__]
        yield f"## method: {word}"
        yield _paragraphs(options["description"])
        yield _options(options, leave_out="method")


def _exports() -> Iterator[str]:
    yield (
        "Options of each entry of `exports`. [Exported files](../concepts/exported-files.md) says what is checked, "
        "[Round](../guides/round.md), [Stream](../guides/stream.md) and "
        "[Ship to a phone](../guides/ship-to-a-phone.md) are the guides."
    )
    definitions = schema()["$defs"]
    for entry in schema()["properties"]["exports"]["items"]["oneOf"]:
        options = resolve(entry, definitions)
        yield f"## format: {options['properties']['format']['const']}"
        yield _paragraphs(options["description"])
        yield from _options_and_groups(options)


def _options_and_groups(options: Mapping[str, Any]) -> Iterator[str]:
    """The table of a model's options, then one of each group of options in it."""
    yield _options(options, leave_out="format")
    for name, field in options["properties"].items():
        group = _group(field)
        if group is not None:
            yield f"### {name}"
            yield _paragraphs(group.get("description", ""))
            yield _options(group)


def _group(field: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The model that a field holds, if it holds one."""
    definitions = schema()["$defs"]
    for choice in (field, *alternatives(field)):
        target = resolve(choice, definitions)
        if "properties" in target:
            return target
    return None


def _options(model: Mapping[str, Any], leave_out: str = "") -> str:
    required = model.get("required", ())
    return _table(
        ("option", "value", "default", ""),
        [
            (f"`{name}`", _value(field), _default(name, field, required), _prose(field.get("description", "")))
            for name, field in model["properties"].items()
            if name != leave_out
        ],
    )


def _value(field: Mapping[str, Any]) -> str:
    return expected(field, schema()["$defs"])


def _default(name: str, field: Mapping[str, Any], required: Sequence[str]) -> str:
    if name in required:
        return "required"
    default = field.get("default")
    if default in (None, {}, [], "") or isinstance(default, dict):
        return ""
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"


# --- exit codes ---


def _exit_codes() -> Iterator[str]:
    yield "What `compressor` gives back to the shell:"
    yield _table(("code", "meaning"), [(str(code), meaning) for code, meaning in EXIT_CODES.items()])


# --- Markdown ---


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _prose(text: str) -> str:
    """Lines joined, `<` that are not in code made harmless."""
    parts = re.split(r"(`[^`]*`)", " ".join(text.split()))
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;").replace("*", "\\*") for part in parts)


def _paragraphs(text: str) -> str:
    return "\n\n".join(_prose(paragraph) for paragraph in text.split("\n\n"))


if __name__ == "__main__":
    main()
