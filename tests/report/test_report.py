import json

import pytest

from compressor.errors import ReportError
from compressor.report import Report
from tests.report.sample import sample


def test_a_report_survives_json():
    assert Report.from_json(sample().to_json()) == sample()


def test_json_that_is_not_a_report_is_refused():
    with pytest.raises(ReportError, match="not a report of this tool"):
        Report.from_json("{}")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_json_cannot_hold_is_refused_with_its_place(value):
    report = sample()
    step = report.steps[2].model_copy(update={"history": ({"epoch": 1, "loss": value},)})
    with pytest.raises(ReportError, match=r"report\.steps\.0\.history\.0\.loss is (nan|inf)"):
        report.model_copy(update={"steps": (step,)}).to_json()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"baselines": [99] * 9}, "`baselines` must"),
        ({"speedups": []}, "must have one entry for each of `compressed`"),
        ({"seed": "one"}, "`seed`: Input should be a valid integer"),
        ({"seeds": 1}, "`seeds`: Extra inputs are not permitted"),
    ],
)
def test_a_report_whose_parts_do_not_fit_together_is_refused(change, said):
    facts = json.loads(sample().to_json())
    if "baselines" in change:
        change = {"baselines": [99] * len(facts["compressed"])}
    with pytest.raises(ReportError, match=said):
        Report.from_json(json.dumps({**facts, **change}))


@pytest.mark.parametrize("text", ["[" * 10**5, '{"a":' * 10**5, "1e999", '{"recipe": ' + "[" * 5000 + "]" * 5000 + "}"])
def test_json_that_is_deep_or_damaged_is_refused(text):
    with pytest.raises(ReportError, match="not a report of this tool"):
        Report.from_json(text)


def test_a_report_of_infinities_is_refused():
    text = sample().to_json()
    number = str(sample().original.score.value)
    with pytest.raises(ReportError, match="is inf"):
        Report.from_json(text.replace(number, "1e999", 1))
