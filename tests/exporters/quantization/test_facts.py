"""What a report says of each matrix of a rounded file, on made-up files."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from onnx import helper, numpy_helper

from exporters.quantization.choice import Chosen
from exporters.quantization.facts import constants, fact, stored_bytes
from exporters.quantization.matrices import Matrix, Use


def matrix(operator="MatMul", *, name="w", shape=(6, 7), channels=(1,), **more):
    plain = operator in ("MatMul", "LSTM", "GRU")
    return Matrix(name, shape, (Use(operator, 1, "node", plain=plain, channels=channels),), channels, **more)


def told(item, form, *, for_cpu=True, constant=None, notes=None):
    chosen = Chosen({item.name: form}, 0.0, None, {item.name: {form: 0.25}}, {item.name: 0.5}, notes or {})
    writer = SimpleNamespace(stored_bytes=lambda name, form: 77)
    weights = SimpleNamespace(listed=lambda name, form: 0.0)
    return fact(item, chosen, writer, constant or {}, {}, weights, for_cpu=for_cpu)


def test_a_product_in_floats_says_why_and_one_that_is_not_rounded_does_not():
    table = matrix("Gather", channels=(0,))
    assert told(table, "weights").note.endswith("no form of integers")
    assert told(table, "float").note == ""
    assert told(table, "weights", for_cpu=False).note == ""
    assert told(matrix(), "integer").note == ""


def test_the_reason_of_a_choice_comes_before_all_others():
    assert told(matrix("Gather"), "weights", notes={"w": "the metric loses 0.1"}).note == "the metric loses 0.1"
    assert told(matrix(), "integer", notes={"w": "why"}).errors == {"integer": 0.25}


@pytest.mark.parametrize(("operator", "is_told"), [("LSTM", True), ("GRU", True), ("MatMul", False)])
def test_a_recurrent_node_of_calibrated_integers_is_told_apart(operator, is_told):
    assert ("plain operations for every position" in told(matrix(operator), "static").note) == is_told


def test_a_constant_is_told_with_its_own_bytes():
    found = told(matrix("Add", channels=()), "float", constant={"w": 42})
    assert (found.form, found.bytes_after, found.note) == ("static", 42, "a constant of Add, rounded as an activation")
    assert told(matrix("Add", channels=()), "float", constant={"w": 0}).bytes_after == 77


def model(**arrays):
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    return helper.make_model(helper.make_graph([], "g", [], [], tensors))


def test_constants_are_what_no_operator_multiplies_and_is_integers_in_the_file():
    items = [matrix(name="a", channels=()), matrix(name="b"), matrix(name="c", channels=()), matrix(name="d", shape=())]
    stored = {f"{name}_quantized": np.zeros((3, 4), np.int8) for name in "abd"}
    assert constants(items, model(**stored)) == {"a": 12}


def test_bytes_of_a_matrix_are_its_own_and_its_scales_and_nothing_twice():
    arrays = {
        "w.int8": np.zeros((5, 6), np.int8),
        "w.scale": np.zeros(5, np.float32),
        "w.scale.1": np.zeros(2, np.float32),
        "v": np.zeros((2, 2), np.float32),
        "v.other": np.zeros(9, np.float32),
    }
    found = stored_bytes([matrix(name="w"), matrix(name="v"), matrix(name="u")], model(**arrays))
    assert found == {"w": 30 + 20 + 8, "v": 16, "u": 0}
