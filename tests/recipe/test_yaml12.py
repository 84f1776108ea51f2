"""YAML is read as 1.2, where PyYAML alone reads 1.1."""

import math

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from compressor.errors import RecipeError
from compressor.plain_yaml import dump
from compressor.recipe.yaml12 import MAX_ALIASES, MAX_DEPTH, parse


def value_of(text):
    document = parse(text, "recipe.yaml")
    assert document is not None
    assert document.errors == ()
    return document.value


@pytest.mark.parametrize(
    "word", ["2:4", "190:20:30", "no", "yes", "on", "off", "No", "y", "1_000", "2024-01-31", "0b11"]
)
def test_words_that_yaml_1_1_reads_as_something_else_are_text(word):
    assert value_of(word) == word


@pytest.mark.parametrize(
    ("text", "number"),
    [("1e-3", 1e-3), ("1E3", 1e3), ("-.5", -0.5), ("1.", 1.0), ("+7", 7), ("010", 10), ("0o17", 15), ("0x1F", 31)],
)
def test_numbers_of_yaml_1_2_are_numbers(text, number):
    value = value_of(text)
    assert value == number
    assert type(value) is type(number)


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("null", None), ("~", None)])
def test_core_words_are_booleans_and_null(text, value):
    assert value_of(text) is value


def test_quotes_make_text_of_anything():
    assert value_of("""['1', "true", 'null', "2"]""") == ["1", "true", "null", "2"]


def test_a_key_without_a_value_is_null():
    assert value_of("a:\nb: 1\n") == {"a": None, "b": 1}


def test_comments_alone_are_no_document():
    assert parse("# nothing\n\n", "recipe.yaml") is None


def test_every_key_and_value_has_its_place():
    document = parse("a:\n  - b: 5\n", "recipe.yaml")
    key, value = document.keys["a", 0, "b"], document.values["a", 0, "b"]
    assert (key.line, key.column, key.source) == (2, 5, "  - b: 5")
    assert (value.line, value.column) == (2, 8)


def test_an_alias_repeats_the_value_of_its_anchor():
    assert value_of("a: &x {b: 1}\nc: *x\n") == {"a": {"b": 1}, "c": {"b": 1}}


def test_a_merge_key_is_an_ordinary_key():
    assert value_of("a: &x {b: 1}\nc: {<<: *x}\n")["c"] == {"<<": {"b": 1}}


def test_mistakes_that_leave_a_value_are_collected():
    document = parse("a: 1\na: 2\nb: .inf\n3: c\n", "recipe.yaml")
    assert [error.message for error in document.errors] == [
        "the key `a` is repeated",
        "`.inf` is not a finite number",
        "a key must be text",
    ]
    assert document.value["a"] == 1


def refusal(text):
    with pytest.raises(RecipeError) as caught:
        parse(text, "recipe.yaml")
    return caught.value


def test_a_tag_is_refused_before_it_is_looked_at():
    error = refusal("a: !!python/object/apply:os.system ['true']\n")
    assert error.render() == (
        "error: a recipe has no tags, found `!!python/object/apply:os.system`\n"
        " --> recipe.yaml:1:4\n"
        "1 | a: !!python/object/apply:os.system ['true']\n"
        "  |    ^\n"
        "hint: remove the tag"
    )


def test_aliases_that_multiply_are_refused_at_once():
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 12)]
    assert refusal("\n".join(lines)).message == "the aliases of this file expand to too much"


def test_an_alias_inside_its_own_anchor_is_refused():
    assert refusal("a: &x [*x]\n").message == "the aliases of this file expand to too much"


def test_many_aliases_are_refused():
    text = "a: &x 1\nb: [" + "*x, " * (MAX_ALIASES + 1) + "]\n"
    assert refusal(text).message == f"more than {MAX_ALIASES} aliases"


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 5000])
def test_deep_nesting_is_refused_without_recursion(levels):
    assert refusal("[" * levels).message == f"nested more than {MAX_DEPTH} levels deep"


def test_a_second_document_is_refused_where_it_begins():
    error = refusal("a: 1\n---\nb: 2\n")
    assert (error.message, error.place.line) == ("a second document begins here", 2)


def test_a_tab_is_named():
    error = refusal("a:\n\t- b\n")
    assert (error.message, error.hint) == ("a tab, but YAML needs spaces", "indent with spaces")


def test_a_control_character_is_named_with_its_place():
    error = refusal("a: 1\nb: \x07\n")
    assert error.message == "the control character U+0007 is not allowed in YAML"
    assert (error.place.line, error.place.column) == (2, 4)


def test_a_number_of_thousands_of_digits_is_not_converted():
    document = parse("9" * 5000, "recipe.yaml")
    assert [error.message for error in document.errors] == ["a number of 5000 characters"]


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=12) | st.floats(-1e6, 1e6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
@example({"0E0": "1e3"})  # PyYAML's own writer leaves these bare: text in YAML 1.1, numbers in 1.2
def test_what_the_writer_writes_comes_back(value):
    text = dump(value, default_flow_style=True, allow_unicode=False)
    assert _same(yaml.safe_load(text), value)  # readers of YAML 1.1 read the same
    document = parse(text.replace("...\n", ""), "recipe.yaml")
    assert document is not None
    assert _same(document.value, value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_as_a_recipe_error(text):
    said = _refusal(text)
    assert said is None or "recipe.yaml" in said


def _refusal(text):
    """What is said of a text that is no recipe; None of one that is read, which holds plain values only."""
    try:
        document = parse(text, "recipe.yaml")
    except RecipeError as error:
        return error.render()
    return None if document is None or _plain(document.value) else "not plain"


def _plain(value):
    """Nothing but what JSON has: a tag of a stranger's file makes no object."""
    if isinstance(value, dict):
        return all(isinstance(key, str) and _plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_plain, value))
    return value is None or type(value) in (str, int, float, bool)


def _same(left, right):
    if isinstance(left, list):
        return isinstance(right, list) and len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(_same(left[k], right[k]) for k in left)
    if isinstance(left, float):
        return isinstance(right, (int, float)) and math.isclose(left, right, rel_tol=1e-12, abs_tol=0.0)
    return left == right
