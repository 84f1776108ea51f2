"""Several runs side by side: only what can be compared is, and what no other file beats is marked."""

import pytest

from compressor.errors import ReportError
from compressor.render import html, markdown
from compressor.report import Latency, Runs, side_by_side
from tests.render.views import changed, printed
from tests.report.sample import sample


def variant(*, value=None, size=None, p50=None, **facts):
    """The sample with another metric, size or latency of its compressed file."""
    report = sample()
    file = report.compressed[0]
    score = file.score if value is None else file.score.model_copy(update={"value": value})
    artifact = file.artifact if size is None else file.artifact.model_copy(update={"bytes": size})
    latency = file.latency if p50 is None else file.latency.model_copy(update={"p50": p50})
    return changed(report, score=score, artifact=artifact, latency=latency).model_copy(update=facts)


def marked(runs):
    return {file.run: file.unbeaten for file in runs.files if file.run}


def test_originals_that_are_the_same_file_are_listed_once():
    runs = side_by_side([("a", sample()), ("b", variant(value=0.9))])
    assert [(file.run, file.file) for file in runs.files] == [
        ("", "original.onnx"),
        ("a", "compressed.onnx"),
        ("b", "compressed.onnx"),
    ]


def test_what_another_file_beats_in_everything_is_not_marked():
    best, worse, smaller = variant(), variant(value=0.9, size=90_000, p50=0.3), variant(value=0.9, size=100)
    runs = side_by_side([("best", best), ("worse", worse), ("smaller", smaller)])
    assert marked(runs) == {
        "best": True,
        "worse": False,
        "smaller": True,
    }


def test_for_an_error_lower_is_better():
    def turned(report):
        score = report.compressed[0].score.model_copy(update={"higher_is_better": False})
        first = report.original.score.model_copy(update={"higher_is_better": False})
        original = report.original.model_copy(update={"score": first})
        return changed(report, score=score).model_copy(update={"original": original})

    runs = side_by_side([("low", turned(variant(value=0.1))), ("high", turned(variant(value=0.2)))])
    assert marked(runs) == {"low": True, "high": False}


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        (
            {"task": "Lstm"},
            "runs of different tasks cannot be compared: `samples/japanese_vowels/task.py:JapaneseVowels`",
        ),
        ({"original": "metric"}, "runs of different metrics cannot be compared: `accuracy` in a, `loss` in b"),
    ],
)
def test_runs_of_other_tasks_and_metrics_are_refused(facts, text):
    other = sample()
    if "original" in facts:
        score = other.original.score.model_copy(update={"metric": "loss"})
        facts = {"original": other.original.model_copy(update={"score": score})}
    with pytest.raises(ReportError) as error:
        side_by_side([("a", sample()), ("b", other.model_copy(update=facts))])
    assert error.value.message.startswith(text)


def test_other_conditions_and_rehearsals_are_told():
    slow = sample()
    timed = slow.original.latency.model_copy(update={"threads": 4})
    slow = slow.model_copy(update={"quick": True, "original": slow.original.model_copy(update={"latency": timed})})
    notes = " ".join(side_by_side([("a", sample()), ("b", slow)]).notes)
    assert "Rehearsals (--quick), whose numbers do not count: b." in notes
    assert "Conditions of the latency" in notes
    assert side_by_side([("a", sample()), ("b", sample())]).notes == ()


def test_every_view_has_every_number_of_the_json():
    runs = side_by_side([("a", sample()), ("b <i>", variant(value=0.9123, size=12_345, p50=0.777))])
    from compressor.render import terminal

    for shown in (html.page(runs), markdown.page(runs), printed(terminal.page(runs), width=200)):
        for wanted in ("0.9784", "0.9730", "0.9123", "12.1 KiB", "0.777 ms", "2.69x", "14,283", "MISSED", "unbeaten"):
            assert wanted in shown
    page = html.page(runs)
    assert "<title>3. b &lt;i&gt;, compressed.onnx: 0.9123, 12.1 KiB</title>" in page
    assert "<i>" not in page
    assert Runs.model_validate_json(runs.model_dump_json()) == runs


def test_files_that_were_not_timed_are_compared_by_metric_and_bytes():
    untimed = changed(variant(value=0.99, size=100), latency=None)
    runs = side_by_side([("a", sample()), ("b", untimed)])
    assert marked(runs) == {"a": False, "b": True}
    assert isinstance(sample().original.latency, Latency)
