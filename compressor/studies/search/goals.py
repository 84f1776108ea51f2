"""What a search is asked for: goals, what to minimise, what may be used, and how long it may take."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from compressor.errors import Place, RecipeError
from compressor.files import read_text
from compressor.formats import ExportOptions
from compressor.onnx_graphs import targets
from compressor.recipe import source
from compressor.recipe.choice import ChosenBy, formats
from compressor.recipe.jsonschema import schema_of
from compressor.recipe.loading import read_document, validated
from compressor.recipe.overrides import Override, apply
from compressor.recipe.yaml12 import Document, parse
from compressor.studies.search.goal_kinds import asked_for
from compressor.studies.search.quantities import Bytes, Milliseconds, Seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

Objective = Literal["bytes", "latency", "drop"]
Means = Literal["units", "width", "heads", "rank", "precision", "retrain"]
MEANS: Final[tuple[Means, ...]] = ("units", "width", "heads", "rank", "precision", "retrain")
_START: Final = "write for example `max_drop: 0.01`, or give --max-drop 0.01"


class Goals(BaseModel):
    """What the file must reach, and what may be done for it. Goals hold for the exported file."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    schema_version: Annotated[int, Field(ge=1, le=1, json_schema_extra={"const": 1}, examples=[1])] = 1
    """Version of this format."""

    name: Annotated[str, Field(min_length=1, max_length=60)] = "search"
    """What reports and recipes call it."""

    max_bytes: Bytes | None = None
    """Largest file, in bytes or with a unit: `600KB` (600,000), `600KiB` (614,400)."""

    max_drop: Annotated[float, Field(ge=0.0)] | None = None
    """Largest loss of the task's metric, absolute and in the metric's own unit."""

    max_latency: Milliseconds | None = None
    """Largest median latency of one call of the file, in milliseconds or with a unit: `5ms`, `800us`."""

    max_flash: Bytes | None = None
    """Largest program on a microcontroller, as the limit `flash_bytes` counts it; of `format: c` with `target`."""

    max_ram: Bytes | None = None
    """Most RAM that it takes there, as `ram_bytes`: struct, inputs, outputs and the deepest stack."""

    minimize: Objective | None = None
    """What is as small as possible among the files that meet all goals; by default bytes, or the drop if there is no
    `max_drop`."""

    use: Annotated[tuple[Means, ...], Field(min_length=1)] = MEANS
    """What may be tried: hidden units of recurrent layers, width of feed-forward layers and convolutions, heads of
    attention, rank of matrices, precision of the stored weights, retraining. What the model does not have is left out
    anyway."""

    allow: tuple[str, ...] = ()
    """Conversions of the architecture that may be tried too, which are other functions than the original: `aaren`, or
    `lama=MODULE` for a pooling of that name."""

    exports: Annotated[
        tuple[Annotated[ExportOptions, ChosenBy("format", formats)], ...],
        Field(min_length=1, max_length=1, examples=[[{"format": "onnx"}]], validate_default=True),
    ] = ({"format": "onnx"},)  # type: ignore[assignment] # validated as an entry of a file is
    """The file that is shipped, as in a recipe. A `precision` that is given here stays."""

    target: str | None = None
    """Where the file is to run: `ort-cpu`, `xnnpack`, `nnapi`, `coreml`, `qnn`, `ncnn`, `mnn` or `litert`. What it does
    not take, by the table of `compressor check`, is not tried, and every file is checked against that table."""

    start: str | None = None
    """A frontier whose points are tried first, as far as this model has the same: a name that `compressor frontiers
    list` shows, or the folder of another search."""

    time: Seconds | None = None
    """How long the search may take, such as `5min` or `2h`, restarts included."""

    trials: Annotated[int, Field(ge=1)] | None = None
    """How many points may be tried; an hour if neither this nor `time` is given."""

    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = 0
    """Of the search, and of every recipe that it tries."""

    sampler: Literal["guided", "random"] = "guided"
    """`guided` proposes points from what was learned so far; `random` is there to compare with."""

    @field_validator("allow")
    @classmethod
    def _known_conversions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        wrong = []
        for word in value:
            name, _, module = word.partition("=")
            if name not in ("aaren", "lama"):
                wrong.append(f"`{word}` in `allow` is not a conversion; use `aaren` or `lama=MODULE`")
            elif (name == "lama") != bool(module):
                wrong.append(f"`{word}` in `allow`: write `{'lama=MODULE' if name == 'lama' else name}`")
        if wrong:
            raise ValueError("; ".join(wrong))
        return value

    @field_validator("target")
    @classmethod
    def _known_target(cls, value: str | None) -> str | None:
        if value is not None and value not in targets.names():
            raise ValueError(f"unknown target `{value}`; use one of {', '.join(targets.names())}")
        return value

    @model_validator(mode="after")
    def _tables_are_of_onnx_files(self) -> Goals:
        if self.target is not None and self.exports[0].format != "onnx":
            raise ValueError(
                f"`target` asks a table about ONNX files, and the format is `{self.exports[0].format}`, whose exporter "
                "checks the file in its own runtime: leave `target` out"
            )
        return self

    @model_validator(mode="after")
    def _boards_run_what_is_exported_for_them(self) -> Goals:
        for kind, _ in asked_for(self):
            if kind.on_board and not self.exports[0].emulates:
                raise ValueError(
                    f"`max_{kind.name}` is measured on an emulated board: give `exports: [{{format: c, target: "
                    "cortex-m4}]`"
                )
        return self

    @model_validator(mode="after")
    def _something_is_asked_for(self) -> Goals:
        others = any(wanted for kind, wanted in asked_for(self) if kind.name != "drop")
        if self.max_drop is None and not others:
            raise ValueError(f"there is no goal; {_START}")
        if self.objective == "drop" and not others:
            raise ValueError(
                "to minimize the drop without `max_bytes` or `max_latency` (or `max_flash`, `max_ram`) gives the "
                "original: it has none"
            )
        if self.objective != "drop" and self.max_drop is None:
            raise ValueError(
                f"`minimize: {self.minimize}` without `max_drop`: the smallest model of all would be the answer; give "
                "`max_drop`, or `minimize: drop`"
            )
        if set(self.use) == {"retrain"}:
            raise ValueError("`use` has `retrain` alone, which makes nothing smaller; add `units` or `precision`")
        return self

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return self.minimize or ("drop" if self.max_drop is None else "bytes")

    @property
    def mixed_bits(self) -> float | None:
        """The average of `precision: mixed` that the export gives; None if it gives none."""
        rounding = self.exports[0].model_dump().get("rounding") or {}
        return rounding.get("bits")

    @property
    def times_files(self) -> bool:
        """Whether latency counts."""
        return self.max_latency is not None or self.objective == "latency"

    @property
    def seconds(self) -> float | None:
        """Time limit; None if only the number of trials counts."""
        return 3600.0 if self.time is None and self.trials is None else self.time

    def key(self) -> str:
        """Hash of all that the study depends on; how long it goes on may be changed later."""
        told = self.model_dump(mode="json", exclude={"time", "trials", "name"})
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


@cache
def schema() -> dict[str, Any]:
    """JSON Schema of a file of goals."""
    return schema_of(Goals, "Goals of compressor search")


def load(path: str | None, options: Sequence[tuple[str, str, Any]] = ()) -> Goals:
    """Goals from a YAML file and from options of the command line, which count more.

    Args:
        path: The file; None if all comes from options.
        options: (option as it was typed, key, value).

    Raises:
        RecipeError: The file cannot be read, or something in it or an option is wrong; holds every mistake.
    """
    document = Document({}, {}, {(): Place("command line")}, noun="goals file", schema=schema())
    if path is not None:
        document = read_document(_text(path), "goals file", schema(), _START)
    overrides = [Override(Place(f"{option} {_typed(value)}"), (key,), _plain(value)) for option, key, value in options]
    return validated(Goals, apply(document, overrides))


def _text(path: str) -> source.Source:
    if not Path(path).is_file():
        raise RecipeError(f"there is no file `{path}`", hint="give a YAML file of goals, or options such as --max-drop")
    text = read_text(Path(path), RecipeError, most=source.MAX_BYTES, hint="give a YAML file in UTF-8")
    return source.Source(path, text)


def _typed(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _plain(value: Any) -> Any:
    """An option's value as YAML would give it: `0.01` is a number."""
    if isinstance(value, (list, tuple)):
        return list(value)
    read = parse(value, "") if isinstance(value, str) else None
    return value if read is None or isinstance(read.value, (dict, list)) else read.value
