"""Goals from files and options: units, defaults, and mistakes with their place."""

import pytest

from compressor.errors import RecipeErrors
from compressor.studies.search.goals import load


def goals(**options):
    return load(None, [(f"--{key.replace('_', '-')}", key, value) for key, value in options.items()])


@pytest.mark.parametrize(
    ("text", "count"), [("600KB", 600_000), ("600KiB", 614_400), ("1.5 MB", 1_500_000), ("7000", 7000), ("2mib", 2**21)]
)
def test_sizes_have_units_of_a_thousand_or_of_1024(text, count):
    assert goals(max_drop="0.01", max_bytes=text).max_bytes == count


@pytest.mark.parametrize(("text", "milliseconds"), [("5ms", 5.0), ("800us", 0.8), ("0.5 s", 500.0), ("3", 3.0)])
def test_latencies_are_milliseconds(text, milliseconds):
    assert goals(max_drop="0.01", max_latency=text).max_latency == pytest.approx(milliseconds)


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90.0), ("5min", 300.0), ("2h", 7200.0)])
def test_times_need_a_unit(text, seconds):
    assert goals(max_drop="0.01", time=text).seconds == seconds


def test_an_hour_if_no_budget_is_given_and_no_clock_if_trials_are():
    assert goals(max_drop="0.01").seconds == 3600.0
    assert goals(max_drop="0.01", trials=10).seconds is None


def test_bytes_are_minimised_within_a_drop_and_the_drop_within_bytes():
    assert goals(max_drop="0.01", max_bytes="7KB").objective == "bytes"
    assert goals(max_bytes="7KB").objective == "drop"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "there is no goal"),
        ({"max_drop": "-0.1"}, "expected a number at least 0"),
        ({"max_drop": "0.01", "max_bytes": "600XB"}, "`600XB` is not a size"),
        ({"max_drop": "0.01", "time": "5"}, "`5` is not a time"),
        ({"max_drop": "0.01", "minimize": "drop"}, "gives the original"),
        ({"max_bytes": "7KB", "minimize": "bytes"}, "without `max_drop`"),
        ({"max_drop": "0.01", "use": ["retrain"]}, "makes nothing smaller"),
        ({"max_drop": "0.01", "max_flash": "16KiB"}, "`max_flash` is measured on an emulated board"),
        ({"max_ram": "2KiB"}, "`max_ram` is measured on an emulated board"),
        ({"max_drop": "0.01", "allow": ["aren"]}, "use `aaren` or `lama=MODULE`"),
        ({"max_drop": "0.01", "allow": ["lama"]}, "write `lama=MODULE`"),
    ],
)
def test_goals_that_cannot_be_meant_are_refused(options, said):
    with pytest.raises(RecipeErrors, match="error: ") as caught:
        goals(**options)
    assert said in caught.value.render()


def test_every_mistake_of_a_file_has_its_line_and_a_hint(tmp_path):
    path = tmp_path / "goals.yaml"
    path.write_text("max_bites: 600KB\nmax_drop: 0.1\nuse: [unit]\n", encoding="utf-8")
    with pytest.raises(RecipeErrors) as caught:
        load(str(path))
    text = caught.value.render()
    assert f"{path}:1:1" in text
    assert "did you mean `max_bytes`?" in text
    assert "did you mean `units`?" in text


def test_an_option_counts_more_than_the_file_and_is_the_place_of_its_mistakes(tmp_path):
    path = tmp_path / "goals.yaml"
    path.write_text("max_drop: 0.1\n", encoding="utf-8")
    assert load(str(path), [("--max-drop", "max_drop", "0.02")]).max_drop == 0.02
    with pytest.raises(RecipeErrors, match=r"--> --max-drop two"):
        load(str(path), [("--max-drop", "max_drop", "two")])


def test_time_and_trials_may_change_in_a_study_that_goes_on():
    assert goals(max_drop="0.01", trials=3).key() == goals(max_drop="0.01", time="2h").key()
    assert goals(max_drop="0.01").key() != goals(max_drop="0.02").key()
