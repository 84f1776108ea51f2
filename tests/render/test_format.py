import pytest
from hypothesis import given
from hypothesis import strategies as st

from compressor.render import format as form


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (form.size(812), "812 B"),
        (form.size(1 << 10), "1.0 KiB"),
        (form.size(112_703), "110.1 KiB"),
        (form.size(5 << 20), "5.0 MiB"),
        (form.size(None), "not known"),
        (form.milliseconds(0.08317), "0.0832 ms"),
        (form.milliseconds(0.642344), "0.642 ms"),
        (form.milliseconds(1234.5), "1,234 ms"),
        (form.ratio(2.7254), "2.73x"),
        (form.ratio(1.0), "1.00x"),
        (form.ratio(134.4), "134x"),
        (form.count(4301952), "4,301,952"),
        (form.large_count(4301952), "4.30 M"),
        (form.large_count(388_000), "388 k"),
        (form.large_count(1152), "1,152"),
        (form.large_count(None), "not counted"),
        (form.percent(0.281), "28.1 %"),
        (form.percent(0.0), "0.0 %"),
        (form.percent(1.0), "100.0 %"),
        (form.percent(0.0001), "under 0.1 %"),
        (form.percent(0.99999), "over 99.9 %"),
        (form.metric(0.97837), "0.9784"),
        (form.metric(0.0000314), "3.14e-05"),
        (form.error(2.4e-7), "2.4e-07"),
        (form.error(0.0), "0"),
        (form.seconds(0.31), "0.31 s"),
        (form.seconds(185), "3 min 05 s"),
        (form.shape(("batch", 12)), "batch × 12"),
        (form.shape(()), "scalar"),
        (form.metric(-0.0), "0.0000"),
        (form.significant(-0.0), "0"),
        (form.arrow("4", "2"), "4 → 2"),
        (form.arrow("4", "4"), "4"),
        (form.plural(1, "matrix", "matrices"), "1 matrix"),
        (form.plural(1200, "matrix", "matrices"), "1,200 matrices"),
        (form.moment("2026-11-28T17:52:13+00:00"), "2026-11-28 17:52 UTC"),
        (form.moment("2026-11-28T17:52:13Z"), "2026-11-28 17:52 UTC"),
        (form.moment("yesterday"), "yesterday"),
    ],
)
def test_numbers_read_well(text, expected):
    assert text == expected


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [(300, 100, "3.00x smaller"), (100, 120, "1.20x larger"), (1000, 1001, "same"), (None, 5, ""), (5, 0, "")],
)
def test_a_change_says_which_way_it_went(before, after, expected):
    assert form.change(before, after, less="smaller", more="larger") == expected


@given(st.floats(1e-9, 1e12))
def test_three_significant_digits_are_right_to_half_a_percent(value):
    assert float(form.significant(value).replace(",", "")) == pytest.approx(value, rel=0.0051)


def test_a_value_of_a_recipe_is_short_and_anything_else_is_text():
    assert [form.short(value) for value in (0.5, 3, 1e-3, None, "half")] == ["0.5", "3", "0.001", "None", "half"]
