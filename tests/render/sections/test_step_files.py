import pytest

from compressor.render.sections.step_files import footnote, size_of_states, table
from compressor.report import QuantizationPoint, StateInfo, StepMeasurement, StreamInfo
from tests.render.sections.test_rounding import rounded
from tests.render.views import changed, said


def state(shape, growing_axis=None):
    return StateInfo(name="h", next_name="h_next", dtype="float32", shape=shape, growing_axis=growing_axis)


def stream(*states):
    return StreamInfo(chunk=1, inputs=(), outputs=(), states=states)


@pytest.mark.parametrize(
    ("states", "text"),
    [
        ([state(("batch", 64))], "256 B"),
        ([state(("batch", "past", 5), growing_axis=1)], "20 B a position"),
        ([state(("batch", 64)), state(("batch", "past", 5), growing_axis=1)], "256 B and 20 B a position"),
    ],
)
def test_the_size_of_states_says_what_grows(states, text):
    assert size_of_states(stream(*states)) == text


@pytest.fixture
def streamed(report):
    """The report with a step file of each model."""

    def with_step(measurement):
        step_file = measurement.artifact.model_copy(
            update={"path": f"{measurement.label}.step.onnx", "stream": stream(state(("batch", 64)))}
        )
        step = StepMeasurement(
            macs=31, peak_memory_bytes=1 << 20, latency=measurement.latency, past=0, score=measurement.score
        )
        artifact = measurement.artifact.model_copy(update={"step": step_file})
        return measurement.model_copy(update={"artifact": artifact, "step": step})

    compressed = (with_step(report.compressed[0]),)
    return report.model_copy(update={"original": with_step(report.original), "compressed": compressed})


def test_both_step_files_and_their_change_are_columns(streamed):
    assert table(streamed).header == ("", "original", "compressed", "change")
    assert table(streamed).rows[0] == ("step file", "original.step.onnx", "compressed.step.onnx", "")
    assert "400 timed runs a file" in footnote(streamed)


def test_without_a_step_file_of_the_original_there_is_no_change(streamed, report):
    assert table(streamed.model_copy(update={"original": report.original})).header == ("", "compressed")


def test_without_step_files_there_is_no_table(report):
    assert (table(report).header, footnote(report)) == (("",), "")


def test_a_rounded_step_file_is_told_with_its_own_errors_and_not_with_those_of_the_float_file(streamed):
    whole = rounded(streamed).compressed[0].artifact
    apart = QuantizationPoint(batch=2, length=13, error=0.25, within=False)
    quantization = whole.quantization.model_copy(update={"beside_whole": (apart,)})
    step = whole.step.model_copy(update={"quantization": quantization})
    other = streamed.compressed[0].step
    other = other.model_copy(update={"score": other.score.model_copy(update={"value": 0.5})})
    report = changed(streamed, artifact=whole.model_copy(update={"step": step}), step=other)
    text = said(report)
    assert "before rounding its steps agree with PyTorch over up to" in text
    assert "rounded they are at most 4.3e-02 (relative, norm) away from PyTorch and 2.5e-01 from the whole" in text
    assert "the two files round differently, or the task's `evaluate` gives other sequences" in text
    same = quantization.model_copy(update={"beside_whole": (apart.model_copy(update={"error": 1e-6}),)})
    step = step.model_copy(update={"quantization": same})
    assert "round differently" not in said(changed(report, artifact=whole.model_copy(update={"step": step})))
