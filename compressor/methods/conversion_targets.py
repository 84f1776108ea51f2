"""What each target of `convert` is built from: the options of the step as a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from compressor.nn.converted.recurrent import TARGETS
from compressor.nn.recurrent.layers import cell_of

if TYPE_CHECKING:
    from torch import Tensor

    from compressor.nn.converted.layer import SequenceLayer
    from compressor.surgery.converting.conversion import Build


class Options(Protocol):
    """The options of `convert` that layers are built from; see there."""

    @property
    def to(self) -> str: ...  # noqa: D102
    @property
    def hidden(self) -> int | None: ...  # noqa: D102
    @property
    def projection(self) -> int | None: ...  # noqa: D102
    @property
    def order(self) -> int: ...  # noqa: D102
    @property
    def dilations(self) -> tuple[int, ...]: ...  # noqa: D102
    @property
    def lookahead(self) -> int: ...  # noqa: D102
    @property
    def oscillators(self) -> int: ...  # noqa: D102
    @property
    def heads(self) -> int: ...  # noqa: D102
    @property
    def keys(self) -> int: ...  # noqa: D102
    @property
    def forget(self) -> bool: ...  # noqa: D102
    @property
    def cell(self) -> str | None: ...  # noqa: D102
    @property
    def clip(self) -> float: ...  # noqa: D102


def builder(step: Options, old: Any) -> Build:
    """Makes the layers that replace those of `old`, with any weights."""

    def build(inputs: int, outputs: int, like: Tensor) -> SequenceLayer:
        fields = {"input_size": inputs, "output_size": outputs, **_OPTIONS[step.to](step, old, outputs)}
        return TARGETS[step.to].from_fields(fields, device=like.device, dtype=like.dtype)

    return build


def note(step: Options, old: Any) -> str:
    """What became what, in one line."""
    kind = type(old).__name__
    if step.to == "fsmn":
        span = (step.order - 1) * sum(step.dilations)
        ahead = f", {step.lookahead * sum(step.dilations)} ahead" if step.lookahead else ""
        return f"{kind} to fsmn: a memory of {span} positions a layer{ahead}"
    if step.to == "lssl":
        return f"{kind} to lssl: {step.oscillators} oscillators a channel"
    if step.to == "additive":
        return f"{kind} to additive: {step.heads} heads of {step.keys} running averages"
    return f"{kind} to a diagonal {_cell(step, old).upper()}"


def _fsmn(step: Options, old: Any, outputs: int) -> dict[str, Any]:
    return {
        "projection": step.projection or max(1, outputs // 2),
        "hidden": step.hidden or outputs,
        "order": step.order,
        "dilations": step.dilations,
        "lookahead": step.lookahead,
    }


def _lssl(step: Options, old: Any, outputs: int) -> dict[str, Any]:
    channels = step.projection or max(1, outputs // 2)
    return {"projection": channels, "hidden": step.hidden or outputs, "oscillators": step.oscillators}


def _para_rnn(step: Options, old: Any, outputs: int) -> dict[str, Any]:
    return {"hidden": step.hidden or outputs, "cell": _cell(step, old), "clip": step.clip}


def _additive(step: Options, old: Any, outputs: int) -> dict[str, Any]:
    values = max(1, (step.projection or max(1, outputs // 2)) // step.heads)
    sizes = {"heads": step.heads, "keys": step.keys, "values": values}
    return {**sizes, "hidden": step.hidden or outputs, "forget": step.forget}


def _cell(step: Options, old: Any) -> str:
    """With a cell state if the old layer has one."""
    return step.cell or ("lstm" if len(cell_of(old).states) > 1 else "gru")


_OPTIONS = {"fsmn": _fsmn, "lssl": _lssl, "para_rnn": _para_rnn, "additive": _additive}
