"""Entries of `exports`: from options by their names, how the original is exported for them, and the names of files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from compressor.errors import UsageError
from compressor.formats import EXPORTERS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from compressor.formats import ExportOptions


def options_of(word: str, **settings: Any) -> ExportOptions:
    """Options of a format by their names.

    Raises:
        UsageError: The format is unknown, has no such option, or the value is not one of it.
    """
    if word not in EXPORTERS:
        raise UsageError(f"unknown format `{word}`", hint=f"use {', '.join(EXPORTERS)}")
    kind = EXPORTERS[word].options
    for name in settings:
        if name not in kind.model_fields:
            known = ", ".join(sorted(set(kind.model_fields) - {"format", "name"}))
            others = [other for other, exporter in EXPORTERS.items() if name in exporter.options.model_fields]
            hint = f"formats that have it, in a command of their own: {', '.join(others)}; " if others else ""
            raise UsageError(f"format `{word}` has no option `{name}`", hint=f"{hint}`{word}` has {known}")
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        raise UsageError(f"{f'`{where}` of ' if where else ''}format `{word}`: {message}") from error


def originals(exports: Sequence[ExportOptions]) -> list[ExportOptions]:
    """How the original is exported: of every kind as the first export that streams, or else the first.

    Formats of ONNX Runtime come first: other files may have to be compared with these.
    """
    kinds: dict[tuple[str, str], list[ExportOptions]] = {}
    for options in sorted(exports, key=lambda options: not options.in_onnx_runtime):
        kinds.setdefault(options.kind, []).append(options)
    return [next((options for options in same if options.streams), same[0]).unrounded() for same in kinds.values()]


def name_of_two_files(exports: Sequence[ExportOptions], ends: Sequence[str] = ("",)) -> str | None:
    """The name that two files of a run would have, if there is one; `A` and `a` are one name on some systems.

    Args:
        exports: Those of the recipe.
        ends: What is behind the `name` of an export in those of its files: for each module that is one, `.encoder`.
    """
    stems = [(options, "original") for options in originals(exports)] + [(options, options.name) for options in exports]
    names = [name for options, stem in stems for end in ends for name in options.file_names(stem + end)]
    seen: set[str] = set()
    for name in names:
        if name.casefold() in seen:
            return name
        seen.add(name.casefold())
    return None
