"""Which matrix gets which form: measured on calibration data, and on the task's metric if that is limited."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from compressor.errors import ExportError
from exporters.quantization.forms import ROUNDED, arithmetic, rounds_inputs, settled, word

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from compressor.progress import Bar
    from exporters.quantization.matrices import Form, Matrix
    from exporters.quantization.trials import Trials

    Forms = dict[str, Form]

_INTEGERS = ("integer", "static")
_SPEED_IN_BYTES = 0.05
"""Leaving integer arithmetic saves no byte but costs time: as if this share of the float matrix were added, or of what
operators without a matrix give."""
_UNDONE = 12
"""How many of the chosen exceptions are tried again without."""
_HARMFUL = 0.1
"""Error of the outputs from which on products in integers are not the first choice, if those in float have half of it:
then it is the inputs in 8 bits, and not the weights, that are lost. A `max_error` above it is meant for the weights."""
_HARMLESS = 0.05
"""Share of `max_error` below which a matrix is not measured in forms of higher precision."""
_METRICS = 8
"""Of how many matrices, those with the largest errors, the metric is measured alone."""


@dataclass(frozen=True)
class Chosen:
    """The forms, and what was measured on the way."""

    forms: Forms
    error: float
    metric_drop: float | None
    alone: Mapping[str, Mapping[Form, float]]
    metric_alone: Mapping[str, float]
    notes: Mapping[str, str]


def choose(
    trials: Trials,
    matrices: Sequence[Matrix],
    ladders: Mapping[str, tuple[Form, ...]],
    max_error: float,
    bar: Bar,
) -> Chosen:
    """The smallest forms within the limits.

    Args:
        trials: Writes and measures files.
        matrices: Of the graph.
        ladders: Matrix -> its forms, from the one that is wanted to the most exact one.
        max_error: Largest relative error of the outputs.
        bar: Told what is measured.

    Each matrix is first measured alone in each of its forms. Then everything gets the form that is wanted, and if
    that breaks a limit, matrices step to a form of higher precision, in the order of (error squared that this takes
    away) / (bytes that it costs), until the limits hold; at last each of these exceptions is tried without. The
    metric of single matrices is measured only if it decides, since the task's own evaluation may take minutes.

    Raises:
        ExportError: Nothing can be rounded within the limits.
    """
    alone: dict[str, dict[Form, float]] = {}
    for name, forms in ladders.items():
        if forms != ("float",):
            bar.advance(0, note=f"measure {name}")
            alone[name] = _alone(trials, name, forms, max_error)
    search = _Search(trials, matrices, ladders, max_error, bar)
    first: Forms = {name: _first(forms, alone.get(name, {})) for name, forms in ladders.items()}
    metric_alone = {} if search.fits(first) else _metric_alone(trials, ladders, alone, bar)
    chosen, exceptions = search.carry_out(first, _moves(trials, matrices, ladders, alone))
    npu = any("static" in forms for forms in ladders.values())
    wanted = ("static",) if npu else ROUNDED
    rounded = any(chosen[matrix.name] in wanted for matrix in matrices if matrix.shape)
    if not rounded or not search.fits(chosen):  # not all ladders end with what is exact
        raise ExportError(
            f"no matrix can be rounded within the limits: {search.why}",
            hint="raise `max_error` or the limit on the metric's drop, or retrain with `quantize: int8`",
        )
    final = settled(chosen, matrices)
    error, drop = search.measured(final)
    notes = {}
    for name, form in final.items():
        if name in exceptions:
            notes[name] = f"with {word(ladders[name][0])} here too: {exceptions[name]}"
        elif form == first[name] != ladders[name][0]:
            notes[name] = (
                f"its inputs in 8 bits would cost a relative output error of {alone[name][ladders[name][0]]:.3g}"
            )
        elif form != ladders[name][0]:
            notes[name] = "the other matrix of its recurrent node is multiplied in float, so this one is as well"
    return Chosen(final, error, drop, alone, metric_alone, notes)


def _alone(trials: Trials, name: str, forms: tuple[Form, ...], max_error: float) -> dict[Form, float]:
    """The error of each form; none of higher precision if a form is harmless. Half precision is not measured."""
    errors: dict[Form, float] = {}
    for form in [form for form in forms if form not in ("half", "float")]:
        errors[form] = trials.error_alone(trials.forward({name: form}))
        if errors[form] < _HARMLESS * max_error:
            break
    return errors


def _first(forms: tuple[Form, ...], errors: Mapping[Form, float]) -> Form:
    """What is wanted, unless its arithmetic harms the inputs: then the first form with products in float."""
    wanted = forms[0]
    exact = next((form for form in errors if arithmetic(form) == "float"), wanted)
    if not rounds_inputs(wanted) or errors[wanted] <= _HARMFUL or errors[exact] > errors[wanted] / 2:
        return wanted
    return exact


def _metric_alone(
    trials: Trials, ladders: Mapping[str, tuple[Form, ...]], alone: Mapping[str, Mapping[Form, float]], bar: Bar
) -> dict[str, float]:
    if trials.metric is None:
        return {}
    worst = sorted(alone, key=lambda name: -alone[name][ladders[name][0]])[:_METRICS]
    losses = {}
    for name in worst:
        bar.advance(0, note=f"metric without {name}")
        losses[name] = trials.metric.loss(trials.forward({name: ladders[name][0]}))
    return losses


def _moves(
    trials: Trials,
    matrices: Sequence[Matrix],
    ladders: Mapping[str, tuple[Form, ...]],
    alone: Mapping[str, Mapping[Form, float]],
) -> list[tuple[str, Form]]:
    """Steps to a form of higher precision, the most useful for its price first."""
    sizes = {matrix.name: matrix.bytes or matrix.activations for matrix in matrices}
    priced = []
    for name, forms in ladders.items():
        for before, after in pairwise(forms):
            errors = [alone[name].get(form, 0.0) for form in (before, after)]
            gain = errors[0] ** 2 - errors[1] ** 2
            price = trials.writer.stored_bytes(name, after) - trials.writer.stored_bytes(name, before)
            slower = _SPEED_IN_BYTES * sizes[name] if arithmetic(before) in _INTEGERS else 0.0
            priced.append((gain / max(price + slower, 1.0), name, after))
    return [(name, after) for _, name, after in sorted(priced, key=lambda item: -item[0])]


class _Search:
    def __init__(
        self,
        trials: Trials,
        matrices: Sequence[Matrix],
        ladders: Mapping[str, tuple[Form, ...]],
        max_error: float,
        bar: Bar,
    ) -> None:
        self.trials, self.matrices, self.ladders, self.max_error, self.bar = trials, matrices, ladders, max_error, bar
        self._known: dict[tuple[tuple[str, Form], ...], tuple[float, float | None]] = {}
        self.why = ""
        """How the last combination that was refused broke a limit."""

    def measured(self, forms: Mapping[str, Form]) -> tuple[float, float | None]:
        """Error and, if the error is allowed and the metric counts, loss of the metric."""
        final = settled(forms, self.matrices)
        key = tuple(sorted(final.items()))
        if key not in self._known:
            self.bar.advance(0, note="measure a choice")
            forward = self.trials.forward(final)
            error, metric = self.trials.error(forward), self.trials.metric
            lost = metric.loss(forward) if metric is not None and error <= self.max_error else None
            self._known[key] = error, lost
        return self._known[key]

    def fits(self, forms: Mapping[str, Form]) -> bool:
        """Whether the limits hold."""
        error, drop = self.measured(forms)
        if error > self.max_error:
            self.why = f"relative output error {error:.3g}, and `max_error` is {self.max_error:g}"
            return False
        metric = self.trials.metric
        if metric is not None and drop is not None and drop > metric.allowed + 1e-9:
            self.why = f"the metric loses {drop:.3g}, and {metric.allowed:.3g} is left of the recipe's limit on it"
            return False
        return True

    def carry_out(self, first: Forms, moves: Sequence[tuple[str, Form]]) -> tuple[Forms, dict[str, str]]:
        """Forms within the limits, and why some of them are not the first choice."""
        if self.fits(first):
            return first, {}
        low, high = 0, 1
        while high < len(moves) and not self.fits(self._after(first, moves[:high])):
            low, high = high, 2 * high
        high = min(high, len(moves))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.fits(self._after(first, moves[:middle])) else (middle, high)
        kept = list(moves[:high])
        reasons: dict[str, str] = {}
        for move in list(reversed(kept))[:_UNDONE]:
            fewer = [other for other in kept if other != move]
            if self.fits(self._after(first, fewer)):
                kept = fewer
            else:
                reasons[move[0]] = self.why
        chosen = self._after(first, kept)
        for name, form in chosen.items():
            if form != first[name]:
                reasons.setdefault(name, self.why)
        return chosen, reasons

    def _after(self, first: Forms, moves: Sequence[tuple[str, Form]]) -> Forms:
        """`first` after the moves; a matrix never goes back to a less exact form."""
        forms = dict(first)
        for name, form in moves:
            forms[name] = max(forms[name], form, key=self.ladders[name].index)
        return forms
