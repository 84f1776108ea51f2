"""Which matrix gets which form: measured on calibration data, and on the task's metric where that is limited."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from compressor.errors import ExportError
from compressor.files import writing
from exporters.quantization.matrices import Form, partners

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from compressor.progress import Bar
    from exporters.quantization.matrices import Matrix
    from exporters.quantization.rewrite import Writer

    Forward = Callable[..., Tensor | tuple[Tensor, ...]]
    Forms = dict[str, Form]

_WORDS: dict[Form, str] = {
    "weights": "8 bits",
    "integer": "8-bit integers",
    "int4": "4 bits",
    "half": "float16",
    "static": "calibrated integers",
}
_INTEGERS = ("integer", "static")
_SPEED_IN_BYTES = 0.05
"""Leaving integer arithmetic saves no byte but costs time: as if this share of the float matrix were added, or of what
operators without a matrix give."""
_UNDONE = 12
"""How many of the chosen exceptions are tried again without."""
_HARMLESS = 0.05
"""Share of `max_error` below which a matrix is not measured in more exact forms."""
_METRICS = 8
"""Of how many matrices, those with the largest errors, the metric is measured alone."""


def ladder(matrix: Matrix, precision: str, target: str) -> tuple[Form, ...]:
    """The forms of a matrix, from the one that is wanted to the most exact one."""
    if matrix.refused:
        return ("float",)
    if not matrix.shape:
        return ("static", "float")
    exact: tuple[Form, ...] = ("weights", "half", "float")
    if target == "npu":
        return exact if matrix.unfit else ("static", *exact)
    if target == "anywhere" or not matrix.is_product:
        return exact
    if precision == "int4":
        return ("int4", "integer", *exact)
    return exact if matrix.slower_as_integers else ("integer", *exact)


def settled(forms: Mapping[str, Form], matrices: Sequence[Matrix]) -> Forms:
    """Forms that go together: a recurrent node whose state is multiplied in float stays native as a whole.

    In calibrated integers both of its matrices are, or none.
    """
    found = dict(forms)
    for inputs, state in partners(matrices).items():
        if "static" in (found[inputs], found[state]):
            found |= {
                name: "weights" for name in (inputs, state) if found[inputs] != found[state] and found[name] == "static"
            }
        elif found[inputs] in ("integer", "int4") and found[state] not in ("integer", "int4"):
            found[inputs] = "weights"
    return found


@dataclass(frozen=True)
class Metric:
    """The task's metric, and how much of it rounding may cost."""

    function: Literal["validate", "evaluate"]
    loss: Callable[[Forward], float]
    """How much worse a file scores than the float file."""
    allowed: float


@dataclass
class Trials:
    """Builds files with given forms and measures them."""

    writer: Writer
    folder: Path
    open: Callable[[Path], Forward]
    calibration: Sequence[tuple[Tensor, ...]]
    metric: Metric | None = None
    _wanted: list[tuple[Tensor, ...]] = field(default_factory=list)

    def forward(self, forms: Mapping[str, Form], *, exact: bool = False) -> Forward:
        """The file with these forms."""
        path = self.folder / "trial.onnx"
        with writing(path):
            path.write_bytes(self.writer.write(forms, exact=exact).SerializeToString())
        return self.open(path)

    def error(self, forward: Forward) -> float:
        """Relative error of a file's outputs on the calibration data; see `relative_error`."""
        if not self._wanted:
            self._wanted = [_flat(self.forward({})(*inputs)) for inputs in self.calibration]
        return relative_error(self._wanted, [_flat(forward(*inputs)) for inputs in self.calibration])


def relative_error(wanted: Sequence[tuple[Tensor, ...]], found: Sequence[tuple[Tensor, ...]]) -> float:
    """The largest of the outputs' ||found - wanted|| / ||wanted||, each over all batches.

    Integers and booleans, such as an argmax, are left out. Infinite where a value is not finite or a shape differs.
    """
    largest: float = 0.0
    for ours, theirs in zip(zip(*wanted, strict=True), zip(*found, strict=True), strict=True):
        if not ours[0].is_floating_point():
            continue
        if any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
            return float("inf")
        pairs = zip(ours, theirs, strict=True)
        difference = float(sum(float((a.double() - b.double()).square().sum()) for a, b in pairs))
        norm = float(sum(float(a.double().square().sum()) for a in ours))
        if not difference < float("inf"):
            return float("inf")
        largest = max(largest, (difference / norm) ** 0.5 if norm else difference**0.5)
    return largest


def _flat(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)


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
    trials: Trials, matrices: Sequence[Matrix], precision: str, target: str, max_error: float, bar: Bar
) -> Chosen:
    """The smallest forms within the limits.

    Each matrix is first measured alone in each of its forms. Then everything gets the form that is wanted, and where
    that breaks a limit, matrices step to a more exact form, in the order of (error squared that this takes away) /
    (bytes that it costs), until the limits hold; at last each of these exceptions is tried without.

    Raises:
        ExportError: Nothing can be rounded within the limits.
    """
    ladders = {matrix.name: ladder(matrix, precision, target) for matrix in matrices}
    alone: dict[str, dict[Form, float]] = {}
    for name, forms in ladders.items():
        if len(forms) > 1:
            bar.advance(0, note=f"measure {name}")
            alone[name] = _alone(trials, name, forms, max_error)
    metric_alone = _metric_alone(trials, ladders, alone, bar)
    search = _Search(trials, matrices, ladders, max_error, bar)
    first: Forms = {name: forms[0] for name, forms in ladders.items()}
    chosen, exceptions = search.carry_out(first, _moves(trials, matrices, ladders, alone))
    wanted = ("static",) if target == "npu" else tuple(_WORDS)
    if not any(chosen[matrix.name] in wanted for matrix in matrices if matrix.shape):
        raise ExportError(
            f"no matrix can be rounded within the limits: {search.why}",
            hint="raise `max_error` or `limits.metric_drop`, or retrain with `quantize: int8`",
        )
    final = settled(chosen, matrices)
    error, drop = search.measured(final)
    notes = {}
    for name, form in final.items():
        if name in exceptions:
            notes[name] = f"with {_WORDS[ladders[name][0]]} here too: {exceptions[name]}"
        elif form != ladders[name][0]:
            notes[name] = "the other matrix of its recurrent node is multiplied in float, so this one is as well"
    return Chosen(final, error, drop, alone, metric_alone, notes)


def _alone(trials: Trials, name: str, forms: tuple[Form, ...], max_error: float) -> dict[Form, float]:
    """The error of each form; of more exact forms none where a form is harmless. Half precision is not measured."""
    found: dict[Form, float] = {}
    for form in forms[: forms.index("half" if "half" in forms else "float")]:
        found[form] = trials.error(trials.forward({name: form}))
        if found[form] < _HARMLESS * max_error:
            break
    return found


def _metric_alone(
    trials: Trials, ladders: Mapping[str, tuple[Form, ...]], alone: Mapping[str, Mapping[Form, float]], bar: Bar
) -> dict[str, float]:
    if trials.metric is None:
        return {}
    worst = sorted(alone, key=lambda name: -alone[name][ladders[name][0]])[:_METRICS]
    found = {}
    for name in worst:
        bar.advance(0, note=f"metric without {name}")
        found[name] = trials.metric.loss(trials.forward({name: ladders[name][0]}))
    return found


def _moves(
    trials: Trials,
    matrices: Sequence[Matrix],
    ladders: Mapping[str, tuple[Form, ...]],
    alone: Mapping[str, Mapping[Form, float]],
) -> list[tuple[str, Form]]:
    """Steps to a more exact form, the most useful for its price first."""
    sizes = {matrix.name: matrix.bytes or matrix.activations for matrix in matrices}
    priced = []
    for name, forms in ladders.items():
        for before, after in pairwise(forms):
            errors = [alone[name].get(form, 0.0) for form in (before, after)]
            gain = errors[0] ** 2 - errors[1] ** 2
            price = trials.writer.stored_bytes(name, after) - trials.writer.stored_bytes(name, before)
            slower = _SPEED_IN_BYTES * sizes[name] if before in _INTEGERS else 0.0
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
        """Error and, where the error is allowed and the metric counts, loss of the metric."""
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
            self.why = f"the metric loses {drop:.3g}, and {metric.allowed:.3g} is left of `limits.metric_drop`"
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
        return chosen, {name: reason for name, reason in reasons.items() if chosen[name] != first[name]}

    def _after(self, first: Forms, moves: Sequence[tuple[str, Form]]) -> Forms:
        """`first` after the moves; a matrix never goes back to a less exact form."""
        found = dict(first)
        for name, form in moves:
            order = self.ladders[name]
            found[name] = max(found[name], form, key=order.index)
        return found
