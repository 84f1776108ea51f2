import pytest

from compressor.report import Quantization, QuantizationPoint, QuantizedMatrix, Report
from tests.render.views import VIEWS, changed, on_terminal, said


def rounded(report):
    """The report with one matrix in integers and one that stayed in float16."""
    artifact = report.compressed[0].artifact
    kept = QuantizedMatrix(
        name="rnn.weight_ih_l0",
        operators=("LSTM",),
        shape=(1, 64, 10),
        form="half",
        bytes_before=2560,
        bytes_after=1280,
        errors={"integer": 0.8, "weights": 0.3},
        note="with 8-bit integers here too: relative output error 0.8, and `max_error` is 0.1",
    )
    fine = kept.model_copy(
        update={
            "name": "rnn.weight_hh_l0",
            "form": "integer",
            "errors": {"integer": 0.01},
            "note": "",
            "bytes_after": 700,
        }
    )
    found = Quantization(
        precision="int8",
        target="cpu",
        matrices=(kept, fine),
        samples=64,
        error=0.02,
        max_error=0.1,
        structure=artifact.parity,
        deviation=(QuantizationPoint(batch=1, length=1, error=0.043, within=True),),
        function="validate",
        metric_drop=0.004,
        metric_drop_allowed=0.005,
    )
    return changed(report, artifact=artifact.model_copy(update={"quantization": found}))


@pytest.mark.parametrize("show", VIEWS)
def test_every_view_shows_each_rounded_matrix_and_why_one_was_not(report, show):
    text = show(rounded(report), **({"width": 240} if show is on_terminal else {}))
    for fact in ("2,560 → 1,280", "float16 in the file", "8-bit integers", "relative output error 0.8", "4.3e-02"):
        assert fact in text


def test_a_choice_made_on_the_data_of_the_report_is_told(report):
    artifact = rounded(report).compressed[0].artifact
    found = artifact.quantization.model_copy(update={"function": "evaluate"})
    assert "give the task a `validate`" in said(
        changed(report, artifact=artifact.model_copy(update={"quantization": found}))
    )
    assert "give the task a `validate`" not in said(rounded(report))


def test_what_was_compared_before_rounding_is_said_to_be(report):
    assert "Before rounding, the file agrees with PyTorch" in said(rounded(report))
    assert "of 2 matrices" in said(rounded(report))
    assert Report.from_json(rounded(report).to_json()) == rounded(report)
