"""Patterns of names, which come from recipes: each is compiled, and none may take forever."""

import pytest

from compressor.nn.patterns import check_patterns, fits


@pytest.mark.parametrize("expression", ["([", "*", "a{9999999999}", "(?P<a", "\\"])
def test_what_is_no_regular_expression_is_refused(expression):
    with pytest.raises(ValueError, match="is not a regular expression"):
        check_patterns([f"re:{expression}"])


@pytest.mark.parametrize(
    "expression", ["(a+)+$", "((a+)b)*", "(a+(b))*", "(a|aa)+$", "(?:a*)*x", "(a{1,})*", "(a?){9,}"]
)
def test_a_repetition_of_a_repetition_is_refused(expression):
    with pytest.raises(ValueError, match="may take forever"):
        check_patterns([f"re:{expression}"])


@pytest.mark.parametrize(
    ("expression", "name"),
    [
        (r"encoder\.\d+\.(weight|bias)", "encoder.12.bias"),
        (r"(?:q|k|v)_proj.*", "q_proj.weight"),
        (r"(?:layer\d)+", "layer1layer2"),
        (r"[(+)*]+", "(+)"),
        (r"\(a+\)+", "(aa))"),
        ("(?x) a+ b  # closes nothing )", "aab"),
    ],
)
def test_a_plain_repetition_or_choice_is_taken(expression, name):
    check_patterns([f"re:{expression}"])
    assert fits(f"re:{expression}", name)


@pytest.mark.parametrize("pattern", ["", "re:", "x" * 301, "re:" + "(" * 200 + ")" * 200])
def test_an_empty_or_very_long_pattern_is_refused(pattern):
    with pytest.raises(ValueError, match=r"empty pattern|more than 300 characters"):
        check_patterns([pattern])
