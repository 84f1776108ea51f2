"""The option `stream`: a step file beside the file of whole sequences."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Discriminator, Field, Tag


class Stream(BaseModel):
    """How the step file is made: one or more positions and the states of all layers in, outputs and new states out."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    chunk: int = Field(default=1, ge=1, le=256)
    """Positions in a step."""
    batch: Literal[1, "dynamic"] = 1
    """Streams that the file runs at once. 1 leaves no shape open, which accelerators of phones want."""
    cells: Literal["auto", "plain", "native"] = "auto"
    """Recurrent layers as plain operations (MatMul, Sigmoid, ...) or as RNN, GRU and LSTM nodes; `auto`: plain if
    `chunk` is 1."""

    @property
    def plain(self) -> bool:
        """Whether recurrent layers are plain operations."""
        return self.cells == "plain" or (self.cells == "auto" and self.chunk == 1)


def _form(value: Any) -> str:
    return "switch" if isinstance(value, bool) else "options"


def _switched_on(value: bool | Stream) -> bool | Stream:
    return Stream() if value is True else value


StreamOption = Annotated[
    Annotated[bool, Tag("switch")] | Annotated[Stream, Tag("options")],
    Discriminator(_form),
    AfterValidator(_switched_on),
]
"""`true`, `false` or the options of a `Stream`; never True once it is read."""
