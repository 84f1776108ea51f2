"""Rounding must make the file smaller: what scales and nodes cost is seen in whole files only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from exporters.quantization.forms import settled

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporters.quantization.choice import Chosen
    from exporters.quantization.matrices import Form, Matrix
    from exporters.quantization.trials import Trials

    Forms = Mapping[str, Form]

_WHY = "as {before} the file would have {more:,} B, as {after} it has {less:,} B"
_CALLED: dict[Form, str] = {"int4": "4 bits", "integer": "8-bit integers", "weights": "8 bits in the file"}


class NothingSaved(ExportError):
    """No rounded file is smaller than the float one."""


def no_larger(trials: Trials, matrices: Sequence[Matrix], chosen: Chosen) -> Chosen:
    """The choice, or one of fewer nodes if that makes the whole file smaller.

    4 bits give way to integers of 8 bits if the file is smaller with these, and products of integers to weights of 8
    bits if the file would not be smaller than the float one.

    Raises:
        NothingSaved: The file is no smaller than the float one in any form.
    """
    sizes = {"float": _bytes(trials, {}), "chosen": _bytes(trials, chosen.forms)}
    for before, after, limit in (("int4", "integer", "chosen"), ("integer", "weights", "float")):
        if before not in chosen.forms.values() or (limit == "float" and sizes["chosen"] < sizes["float"]):
            continue
        changed = _with(trials, matrices, chosen, before, after)  # type: ignore[arg-type]
        size = _bytes(trials, changed.forms)
        if size < sizes["chosen"]:
            why = _WHY.format(before=_CALLED[before], after=_CALLED[after], more=sizes["chosen"], less=size)  # type: ignore[index]
            names = [name for name, form in chosen.forms.items() if changed.forms[name] != form]
            chosen = replace(changed, notes={**changed.notes, **dict.fromkeys(names, why)})
            sizes["chosen"] = size
    if sizes["chosen"] >= sizes["float"]:
        raise NothingSaved(
            f"rounded, the file would have {sizes['chosen']:,} B, in float32 it has {sizes['float']:,} B: scales and "
            "nodes cost more than the bits save",
            hint="leave `precision` out for this model",
        )
    return chosen


def _with(trials: Trials, matrices: Sequence[Matrix], chosen: Chosen, before: Form, after: Form) -> Chosen:
    forms = settled({name: after if form == before else form for name, form in chosen.forms.items()}, matrices)
    forward, metric = trials.forward(forms), trials.metric
    loss = None if metric is None else metric.loss(forward)
    return replace(chosen, forms=forms, error=trials.error(forward), metric_drop=loss)


def _bytes(trials: Trials, forms: Forms) -> int:
    return int(trials.writer.write(forms).ByteSize())
