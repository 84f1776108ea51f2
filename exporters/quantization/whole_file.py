"""Rounding must make the file smaller: what scales and nodes cost is seen in whole files only."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from exporters.quantization.forms import arithmetic, bits, in_float, settled, word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporters.quantization.choice import Chosen
    from exporters.quantization.matrices import Form, Matrix
    from exporters.quantization.trials import Trials

    Forms = Mapping[str, Form]

_WHY = "as {before} the file would have {more:,} B, as {after} it has {less:,} B"


class NothingSaved(ExportError):
    """No rounded file is smaller than the float one."""


def no_larger(trials: Trials, matrices: Sequence[Matrix], chosen: Chosen) -> Chosen:
    """The choice, or one of fewer nodes if that makes the whole file smaller.

    Fewer bits give way to 8 if the file is smaller with these, and products of integers to weights of 8 bits if the
    file would not be smaller than the float one.

    Raises:
        NothingSaved: The file is no smaller than the float one in any form.
    """
    sizes = {"float": trials.bytes({}), "chosen": trials.bytes(chosen.forms)}
    for simpler, whatever_the_size in ((_in_8_bits, True), (in_float, False)):
        if not whatever_the_size and sizes["chosen"] < sizes["float"]:
            continue
        changed = {name: simpler(form) for name, form in chosen.forms.items()}
        if changed == chosen.forms:
            continue
        changed = settled(changed, matrices)
        size = trials.bytes(changed)
        if size < sizes["chosen"]:
            notes = {
                name: _WHY.format(before=word(form), after=word(changed[name]), more=sizes["chosen"], less=size)
                for name, form in chosen.forms.items()
                if changed[name] != form
            }
            chosen = _with(trials, chosen, changed, notes)
            sizes["chosen"] = size
    if sizes["chosen"] >= sizes["float"]:
        raise NothingSaved(
            f"rounded, the file would have {sizes['chosen']:,} B, in float32 it has {sizes['float']:,} B: scales and "
            "nodes cost more than the bits save",
            hint="leave `precision` out for this model",
        )
    return chosen


def _in_8_bits(form: Form) -> Form:
    """Of fewer nodes: nothing has to be unpacked."""
    if bits(form) >= 8:
        return form
    return "weights" if arithmetic(form) == "float" else "integer"


def _with(trials: Trials, chosen: Chosen, forms: Forms, notes: Mapping[str, str]) -> Chosen:
    forward, metric = trials.forward(forms), trials.metric
    loss = None if metric is None else metric.loss(forward)
    return replace(
        chosen, forms=dict(forms), error=trials.error(forward), metric_drop=loss, notes={**chosen.notes, **notes}
    )
