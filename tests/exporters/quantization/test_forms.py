"""Forms of a matrix: bits in the file, arithmetic of the product, the ladder from the smallest to the exact one."""

from __future__ import annotations

from typing import get_args

import pytest

from exporters.quantization.forms import (
    ROUNDED,
    arithmetic,
    bits,
    in_float,
    is_packed,
    ladder,
    settled,
    stored_in,
    word,
)
from exporters.quantization.matrices import Form, Matrix, Use


@pytest.mark.parametrize(
    ("kind", "count", "form"),
    [
        ("weights", 32, "float"),
        ("integer", 32, "float"),
        ("weights", 16, "half"),
        ("weights", 8, "weights"),
        ("integer", 8, "integer"),
        ("weights", 6, "weights6"),
        ("integer", 4, "integer4"),
    ],
)
def test_bits_and_arithmetic_give_the_form_and_the_form_gives_the_bits(kind, count, form):
    assert stored_in(kind, count) == form
    assert bits(form) == count
    assert arithmetic(form) == ("integer" if kind == "integer" and count <= 8 else "float")
    assert is_packed(form) == (count < 8)


@pytest.mark.parametrize(
    ("form", "floats", "said"),
    [
        ("half", "half", "float16"),
        ("weights", "weights", "8 bits"),
        ("weights4", "weights4", "4 bits"),
        ("integer", "weights", "8-bit integers"),
        ("integer4", "weights4", "4 bits as 8-bit integers"),
        ("int4", "weights4", "4 bits"),
        ("static", "weights", "calibrated integers"),
    ],
)
def test_every_form_has_one_with_products_in_float_and_a_word(form, floats, said):
    assert (in_float(form), word(form)) == (floats, said)


def test_all_forms_but_float_round_something():
    assert set(ROUNDED) == set(get_args(Form)) - {"float"}


def matrix(operator="MatMul", *, shape=(6, 7), **more):
    return Matrix("w", shape, (Use(operator, 1, "w", plain=True, channels=(1,)),), (1,), **more)


@pytest.mark.parametrize(
    ("item", "precision", "target", "forms"),
    [
        (matrix(), "int8", "cpu", ("integer", "weights", "half", "float")),
        (matrix(), "int4", "cpu", ("int4", "integer", "weights", "half", "float")),
        (matrix(), "int8", "anywhere", ("weights", "half", "float")),
        (matrix(), "int4", "anywhere", ("weights4", "weights", "half", "float")),
        (matrix(), "int8", "npu", ("static", "weights", "half", "float")),
        (matrix(unfit="its scale"), "int8", "npu", ("weights", "half", "float")),
        (matrix(refused="named"), "int8", "cpu", ("float",)),
        (matrix(shape=()), "int8", "npu", ("static", "float")),
        (matrix("Gather"), "int4", "cpu", ("weights", "half", "float")),
    ],
)
def test_a_ladder_leads_from_what_is_wanted_to_what_is_exact(item, precision, target, forms):
    assert ladder(item, precision, target) == forms


@pytest.mark.parametrize(
    ("inputs", "state", "together"),
    [
        ("integer", "weights", ("weights", "weights")),
        ("integer", "float", ("weights", "float")),
        ("integer4", "half", ("weights4", "half")),
        ("int4", "weights", ("weights4", "weights")),
        ("integer", "integer4", ("integer", "integer4")),
        ("int4", "integer", ("int4", "integer")),
        ("weights", "integer", ("weights", "integer")),
        ("half", "float", ("half", "float")),
        ("static", "static", ("static", "static")),
        ("static", "weights", ("weights", "weights")),
        ("weights", "static", ("weights", "weights")),
        ("half", "static", ("half", "weights")),
        ("static", "float", ("weights", "float")),
    ],
)
def test_both_matrices_of_a_recurrent_node_have_forms_that_go_together(inputs, state, together):
    pair = [
        Matrix(name, (1, 24, 6), (Use("LSTM", place, "node", plain=True, channels=(0, 1)),), (0, 1))
        for name, place in (("W", 1), ("R", 2))
    ]
    given = {"W": inputs, "R": state, "other": "integer"}
    assert settled(given, [*pair, matrix()]) == {"W": together[0], "R": together[1], "other": "integer"}
    assert given == {"W": inputs, "R": state, "other": "integer"}
