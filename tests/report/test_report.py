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
