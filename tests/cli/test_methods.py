"""`methods`: what a step can be."""

import json

import pytest

from compressor.methods import METHODS
from tests.cli.conftest import call


def test_the_list_of_methods_has_a_line_for_each():
    lines = call("methods", "list").out.splitlines()[2:]
    assert [line.split(maxsplit=1) for line in lines] == [[name, method.summary] for name, method in METHODS.items()]
    assert [row["name"] for row in json.loads(call("methods", "list", "--json").out)] == list(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_show_names_every_option_with_what_it_may_be(name):
    text = call("methods", "show", name).out
    lines = text.splitlines()
    for option in METHODS[name].model_fields:
        assert option == "method" or any(line.startswith(f"{option}  ") for line in lines)
    assert f"  - method: {name}\n" in text
    assert max(len(line) for line in lines) <= 100


def test_show_gives_type_range_and_default():
    text = call("methods", "show", "magnitude").out
    assert "\nprune  `weights` or `units`; required\n" in text
    assert "\nscope  `layer` or `global`\n" in text
    assert "\nmatrices  `both`, `i2h` or `h2h`; default both\n" in text
    assert "\nratio  a number above 0 and below 1\n" in text
    assert "\nretrain  a mapping of options of `retrain`\n" in text


def test_an_unknown_method_names_the_nearest_one():
    result = call("methods", "show", "retrane")
    assert (result.code, result.err) == (2, "error: unknown method `retrane`\nhint: did you mean `retrain`?\n")
