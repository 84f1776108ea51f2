"""Facts that are a document: written as JSON, read back whole or refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

from pydantic import ValidationError

from compressor.errors import ReportError
from compressor.report.fact import Fact

_MOST_PROBLEMS = 3


class Document(Fact):
    """The facts of one command; `--format json` and `report.json` hold them, every other form is a view of them."""

    schema_version: int = 1

    NAME: ClassVar[str]
    """What a text that cannot be read is not."""
    AGAIN: ClassVar[str]
    """How such a document is made anew."""
    in_a_frame: ClassVar[Callable[[Any], str] | None] = None
    """Gives the page of a document in a frame; set by `compressor.render.html`, as nothing here knows of views."""

    def to_json(self) -> str:
        """The facts as JSON text, keys in the order of the fields; raises `ReportError` on a NaN or infinity."""
        _refuse_non_finite(self.model_dump(mode="python"), "report")
        return self.model_dump_json(indent=2) + "\n"

    def _repr_html_(self) -> str | None:
        """The page of this document in a frame, for notebooks, which call this and show text if there is none."""
        draw = Document.in_a_frame
        return None if draw is None else draw(self)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read `to_json`'s text back; raises `ReportError` if it is not such a text."""
        try:
            document = cls.model_validate_json(text)
        except ValidationError as error:
            problems = [(".".join(map(str, problem["loc"])), problem["msg"]) for problem in error.errors()]
            shown = "; ".join(f"`{place}`: {said}" if place else said for place, said in problems[:_MOST_PROBLEMS])
            more = f"; and {len(problems) - _MOST_PROBLEMS} more" if len(problems) > _MOST_PROBLEMS else ""
            raise ReportError(f"not {cls.NAME}: {shown}{more}", hint=cls.AGAIN) from error
        _refuse_non_finite(document.model_dump(mode="python"), "report")
        return document


def _refuse_non_finite(value: Any, path: str) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_non_finite(item, f"{path}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{path}.{index}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ReportError(f"{path} is {value}", hint="a report holds finite numbers only")
