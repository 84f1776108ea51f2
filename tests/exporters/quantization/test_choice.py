"""Which matrix gets which form, on made-up errors: the least bytes within the limits, a reason for each exception."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest

from compressor.errors import ExportError
from exporters.quantization.choice import choose
from exporters.quantization.matrices import Matrix, Use

BYTES = {"float": 400, "half": 200, "weights": 110, "integer": 100, "static": 100, "int4": 60}
LADDER = ("int4", "integer", "weights", "half", "float")


def matrix(name):
    return Matrix(name, (10, 10), (Use("MatMul", 1, name, plain=True, channels=(1,)),), (1,))


class Trials:
    """Errors of matrices add up in squares, losses of the metric in parts; a file is told by its forms."""

    def __init__(self, errors, *, losses=None, allowed=0.0, extra=None):
        self.errors, self.losses, self.extra = errors, losses or {}, extra or {}
        self.writer = SimpleNamespace(stored_bytes=lambda name, form: BYTES[form] + self.extra.get((name, form), 0))
        self.metric = SimpleNamespace(loss=self._loss, allowed=allowed) if losses else None
        self.seen = []

    def forward(self, forms):
        self.seen.append(dict(forms))
        return forms

    def error(self, forms):
        return math.sqrt(sum(self.errors.get(item, 0.0) ** 2 for item in forms.items()))

    error_alone = error

    def _loss(self, forms):
        return sum(self.losses.get(item, 0.0) for item in forms.items())


def chosen(trials, names="ab", ladder=("int4", "integer", "float"), max_error=1.0):
    bar = SimpleNamespace(advance=lambda count, note="": None)
    return choose(trials, [matrix(name) for name in names], dict.fromkeys(names, ladder), max_error, bar)


def test_everything_has_the_form_that_is_wanted_if_the_limits_hold():
    found = chosen(Trials({("a", "int4"): 0.6, ("b", "int4"): 0.7}))
    assert (found.forms, found.notes) == ({"a": "int4", "b": "int4"}, {})
    assert found.error == pytest.approx(math.hypot(0.6, 0.7))


def test_products_in_integers_that_harm_their_inputs_are_not_the_first_choice_whatever_the_limit():
    errors = {("a", "int4"): 0.7, ("a", "integer"): 0.7, ("a", "weights"): 0.02, ("b", "int4"): 0.7}
    found = chosen(Trials(errors | {("b", "integer"): 0.5, ("b", "weights"): 0.4}), ladder=LADDER, max_error=2.0)
    assert found.forms == {"a": "weights", "b": "int4"}
    assert found.notes == {"a": "its inputs in 8 bits would cost a relative output error of 0.7"}


@pytest.mark.parametrize(("error", "form"), [(0.1, "int4"), (0.1001, "weights")])
def test_products_in_integers_are_harmful_beyond_a_tenth(error, form):
    found = chosen(Trials({("a", "int4"): error, ("a", "integer"): 0.1, ("a", "weights"): 0.001}), "a", LADDER)
    assert found.forms == {"a": form}


def test_the_matrix_that_takes_most_error_away_for_a_byte_steps_up():
    errors = {("a", "int4"): 1.0, ("b", "int4"): 0.9}
    dear = Trials(errors, extra={("a", "integer"): 1000})
    assert chosen(dear).forms == {"a": "int4", "b": "integer"}
    cheap = Trials(errors)
    assert chosen(cheap).forms == {"a": "integer", "b": "int4"}


def test_an_exception_that_a_later_one_makes_needless_is_taken_back():
    trials = Trials(
        {("a", "int4"): 2.0, ("b", "int4"): 0.5, ("a", "integer"): 0.1},
        extra={("b", "integer"): -35, ("a", "integer"): 900, ("a", "float"): 900},
    )
    found = chosen(trials)
    assert found.forms == {"a": "integer", "b": "int4"}
    assert set(found.notes) == {"a"}
    assert found.notes["a"].startswith("with 4 bits here too: relative output error")
    assert "`max_error` is 1" in found.notes["a"]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8])
def test_no_more_matrices_step_up_than_have_to(count):
    names = "abcdefghij"
    errors = {(name, "int4"): 1.0 for name in names}
    found = chosen(Trials(errors), names, max_error=math.sqrt(len(names) - count) + 0.01)
    assert sum(form == "integer" for form in found.forms.values()) == count
    assert sum(form == "int4" for form in found.forms.values()) == len(names) - count
    assert len(found.notes) == count


def test_leaving_integers_costs_time_as_if_it_cost_bytes():
    errors = {("a", "integer"): 0.1, ("b", "int4"): 0.095}
    ladders = {"a": ("integer", "weights", "float"), "b": ("int4", "integer", "float")}
    trials, bar = Trials(errors), SimpleNamespace(advance=lambda count, note="": None)
    found = choose(trials, [matrix("a"), matrix("b")], ladders, 0.1, bar)
    # 10 bytes and the time of 0.05 x 400 bytes for `weights` of a, 40 bytes for `integer` of b
    assert found.forms == {"a": "weights", "b": "int4"}
    trials.extra[("a", "weights")] = 15
    assert choose(trials, [matrix("a"), matrix("b")], ladders, 0.1, bar).forms == {"a": "integer", "b": "integer"}


def test_the_metric_is_a_limit_too_and_its_reason_says_so():
    losses = {("a", "int4"): 0.03, ("b", "int4"): 0.001}
    errors = {("a", "int4"): 0.5, ("b", "int4"): 0.5}
    found = chosen(Trials(errors, losses=losses, allowed=0.01))
    assert found.forms == {"a": "integer", "b": "int4"}
    assert found.metric_drop == pytest.approx(0.001)
    assert found.metric_alone == losses_by_name(losses)
    assert "the metric loses 0.03" in found.notes["a"]
    enough = chosen(Trials(errors, losses=losses, allowed=0.031))
    assert (enough.forms, enough.metric_alone) == ({"a": "int4", "b": "int4"}, {})


def losses_by_name(losses):
    return {name: pytest.approx(loss) for (name, _), loss in losses.items()}


def test_a_form_that_is_harmless_is_the_last_that_is_measured():
    trials = Trials({("a", "int4"): 0.01, ("a", "integer"): 0.01})
    found = chosen(trials, "a")
    assert found.alone == {"a": {"int4": 0.01}}
    worse = chosen(Trials({("a", "int4"): 0.05, ("a", "integer"): 0.01}), "a")
    assert set(worse.alone["a"]) == {"int4", "integer"}


def test_what_cannot_be_rounded_within_the_limits_is_refused():
    with pytest.raises(ExportError, match="no matrix can be rounded within the limits: relative output error"):
        chosen(Trials({(name, form): 9.0 for name in "ab" for form in LADDER[:-1]}), ladder=LADDER)


@pytest.mark.parametrize(("error", "forms"), [(1.0, "int4"), (1.0 + 1e-6, "integer")])
def test_an_error_of_exactly_the_limit_is_allowed(error, forms):
    assert chosen(Trials({("a", "int4"): error}), "a").forms == {"a": forms}


@pytest.mark.parametrize(("loss", "forms"), [(0.25, "int4"), (0.2501, "integer")])
def test_a_loss_of_exactly_what_is_allowed_is_allowed(loss, forms):
    assert chosen(Trials({}, losses={("a", "int4"): loss}, allowed=0.25), "a").forms == {"a": forms}


@pytest.mark.parametrize("count", [7, 8, 12])
def test_the_metric_is_measured_alone_of_the_eight_matrices_with_the_largest_errors(count):
    names = "abcdefghijkl"[:count]
    errors = {(name, "int4"): 0.01 * (index + 6) for index, name in enumerate(names)}
    losses = {(name, "int4"): 0.001 for name in names}
    found = chosen(Trials(errors, losses=losses, allowed=0.0), names)
    assert set(found.metric_alone) == set(names[-8:])
    assert chosen(Trials(errors, losses=losses, allowed=1.0), names).metric_alone == {}


def test_the_metric_is_not_measured_of_a_choice_whose_error_is_too_large():
    losses = {("a", "int4"): 0.0, ("b", "int4"): 0.0}
    trials = Trials({("a", "int4"): 2.0}, losses=losses, allowed=1.0)
    asked = []
    trials.metric.loss = lambda forms: asked.append(dict(forms)) or 0.0
    found = chosen(trials)
    assert found.metric_drop == 0.0
    assert {"a": "int4", "b": "int4"} not in asked


def test_each_combination_is_measured_once_and_the_bar_is_told():
    trials, notes = Trials({("a", "int4"): 2.0, ("b", "int4"): 2.0}), []
    bar = SimpleNamespace(advance=lambda count, note="": notes.append((count, note)))
    choose(trials, [matrix("a"), matrix("b")], dict.fromkeys("ab", LADDER), 1.0, bar)
    whole = [tuple(sorted(forms.items())) for forms in trials.seen if len(forms) == 2]
    assert len(whole) == len(set(whole))
    assert notes.count((0, "measure a")) == notes.count((0, "measure b")) == 1
    assert notes.count((0, "measure a choice")) == len(whole)


@pytest.mark.parametrize(("error", "measured"), [(0.0499, {"int4"}), (0.0501, {"int4", "integer"})])
def test_harmless_is_less_than_a_twentieth_of_the_limit(error, measured):
    found = chosen(Trials({("a", "int4"): error, ("a", "integer"): 0.01}), "a")
    assert set(found.alone["a"]) == measured


def test_a_matrix_that_stays_float_is_not_measured_and_neither_are_exact_forms():
    ladders = {"a": ("int4", "half", "float"), "b": ("float",)}
    trials, bar = Trials({("a", "int4"): 0.5}), SimpleNamespace(advance=lambda count, note="": None)
    found = choose(trials, [matrix(name) for name in "ab"], ladders, 1.0, bar)
    assert found.alone == {"a": {"int4": 0.5}}
    assert found.forms == {"a": "int4", "b": "float"}


def test_a_wish_for_npus_is_not_met_by_weights_alone():
    ladders = {"a": ("static", "weights", "float"), "b": ("static", "weights", "float")}
    bar = SimpleNamespace(advance=lambda count, note="": None)
    pair = [matrix("a"), matrix("b")]
    assert choose(Trials({("a", "static"): 2.0}), pair, ladders, 1.0, bar).forms == {"a": "weights", "b": "static"}
    with pytest.raises(ExportError, match="no matrix can be rounded"):
        choose(Trials({("a", "static"): 2.0, ("b", "static"): 2.0}), pair, ladders, 1.0, bar)
