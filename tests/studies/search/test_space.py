"""Points of a space and the recipes that they stand for."""

import pytest

from compressor.errors import RecipeErrors
from compressor.studies.search.goals import Goals, load
from compressor.studies.search.parts import Conversion, HeadRemoval, Removal
from compressor.studies.search.retraining import Retraining
from compressor.studies.search.space import Space

WORDS = ("float32", "int8", "mixed")
PARTS = (Removal("units", (("rnn",),), ((12,),), None), HeadRemoval(4))
RETRAINING = Retraining(16, 160, 4, "kl", ("0.5", "1.0"))


def space(**goals):
    return Space(Goals(max_drop=0.01, **goals), PARTS, RETRAINING, WORDS, ())


def point(**knobs):
    return space().with_nothing_removed()[0] | knobs


def test_knobs_that_do_nothing_make_no_other_point():
    one = point(units=0.0, heads=0.0, precision="int8", bits=3.0, lr=1e-3)
    other = point(units=0.01, heads=0.1, precision="int8", bits=6.0, lr=2e-3, **{"heads.scope": "global"})
    assert space().canonical(one) == space().canonical(other)
    assert space().recipe(one, 1).steps == ()


def test_knobs_that_do_something_stay():
    one = space().canonical(point(units=0.5, precision="mixed", bits=3.0, lr=1e-3, batches=20))
    assert (one["units"], one["bits"], one["lr"], one["batches"]) == (0.5, 3.0, 1e-3, 20)
    export = space().export(one)
    assert (export.precision, export.rounding.bits) == ("mixed", 3.0)


def test_a_precision_of_the_goals_stays_with_its_bits():
    given = {"exports": [{"format": "onnx", "precision": "mixed", "rounding": {"bits": 3.25}}]}
    kept = Space(Goals.model_validate({"max_drop": 0.01, **given}), PARTS, RETRAINING, ("mixed",), ())
    assert "bits" not in [knob.name for knob in kept.knobs]
    assert kept.stored(kept.with_nothing_removed()[0]).bits == 3.25
    assert kept.export(kept.with_nothing_removed()[0]).rounding.bits == 3.25


@pytest.mark.parametrize(
    ("options", "said"),
    [({"target": "qnm"}, "unknown target `qnm`"), ({"target": "mnn", "exports": [{"format": "mnn"}]}, "`target` out")],
)
def test_targets_that_have_no_table_for_the_file_are_refused(options, said):
    with pytest.raises(RecipeErrors) as caught:
        load(None, [("--max-drop", "max_drop", 0.01), *((f"--{key}", key, value) for key, value in options.items())])
    assert said in caught.value.render()


def test_rounding_in_training_is_for_few_bits_alone_and_is_a_retraining_of_its_own():
    rounds = Retraining(16, 160, 4, "kl", ("1.0",), rounds=("int4",))
    own = Space(Goals(max_drop=0.01), PARTS, rounds, ("float32", "int8", "int4"), ())
    rest = own.at_rest | {"quantize": "yes"}
    assert own.recipe(own.canonical(rest | {"precision": "int8"}), 1).steps == ()
    (step,) = own.steps(own.canonical(rest | {"precision": "int4", "batches": 20}), 2)
    assert (step["method"], step["quantize"], step["epochs"]) == ("retrain", "int4", 5)
    assert own.canonical(rest | {"precision": "int8"})["quantize"] == "no"
    plain = own.canonical(own.at_rest | {"precision": "int4"})
    assert own.steps(plain, 2) == []


def test_the_less_is_removed_the_lower_is_the_first_learning_rate():
    points = [space().removing(level) for level in (0.9, 0.1, 0.5)]
    rates = {point["units"]: point["lr"] for point in points}
    assert [rates[level] for level in sorted(rates)] == sorted(set(rates.values()))


def test_a_model_is_trained_in_the_bits_on_average_that_its_file_gets():
    rounds = Retraining(16, 160, 4, "kl", ("1.0",), rounds=("int4", "mixed"))
    own = Space(Goals(max_drop=0.01), PARTS, rounds, ("float32", "int8", "int4", "mixed"), ())
    point = own.canonical(own.at_rest | {"quantize": "yes", "precision": "mixed", "bits": 3.25})
    (step,) = own.recipe(point, 1).steps
    assert (step.quantize, step.bits, step.learn_steps) == ("mixed", 3.25, True)
    assert own.export(point).rounding.bits == 3.25


def test_what_was_removed_may_stay_untrained():
    one = space().canonical(point(units=0.5, retrain="no", lr=2e-3, batches=20))
    assert [step.method for step in space().recipe(one, 1).steps] == ["magnitude"]
    assert one == space().canonical(point(units=0.5, retrain="no", lr=1e-3, batches=90))
    assert space().first_rung(one) == 0
    trained = space().canonical(point(units=0.5))
    assert [step.method for step in space().recipe(trained, 1).steps] == ["magnitude", "retrain"]


def test_new_weights_and_few_bits_are_always_trained_and_nothing_removed_is_no_other_point():
    rounds = Retraining(16, 160, 4, "kl", ("1.0",), rounds=("int4",))
    own = Space(Goals(max_drop=0.01), (*PARTS, Conversion("aaren")), rounds, ("float32", "int8", "int4"), ())
    untrained = own.at_rest | {"retrain": "no"}
    for knobs in ({"aaren": "yes"}, {"precision": "int4", "quantize": "yes", "units": 0.5}):
        one = own.canonical(untrained | knobs)
        assert own.recipe(one, 1).steps[-1].method == "retrain"
        assert one == own.canonical(one | {"retrain": "yes"})
    assert own.canonical(untrained) == own.canonical(own.at_rest)


def test_a_space_that_removes_nothing_has_no_such_choice():
    own = Space(Goals(max_drop=0.01), (), RETRAINING, WORDS, ())
    assert "retrain" not in [knob.name for knob in own.knobs]
