"""What all three views have in common."""

import re

import pytest

from tests.render.views import DOCUMENTS, VIEWS, changed


@pytest.mark.parametrize("show", VIEWS)
def test_every_view_shows_the_numbers_that_matter(report, show):
    shown = show(report)
    for wanted in (
        "gru-half", "0.9784", "0.9730", "55,689", "14,283", "10,275", "3.84x smaller", "5.12x smaller", "388 k",
        "10.7 MiB", "2.69x as fast", "2.61x to 2.77x", "batch 1, length 29, 1 thread", "Zeros alone do not make",
        "MISSED", "at least 3.00x", "percentile bootstrap over 370 samples",
    ):  # fmt: skip
        assert wanted in shown


@pytest.mark.parametrize("show", DOCUMENTS)
def test_documents_show_every_fact_of_the_run(report, show):
    shown = show(report).replace("\\", "")
    for wanted in (
        "384 × 12 → 183 × 12", "not among the targets", "epochs: 12", "best epoch, 10, was kept", "2.4e-07",
        "batch × time × 12", "GRU 1", "AMD EPYC 9B14", "onnxruntime 1.32.0", "round_to: 1", "schema_version: 1",
        "there is no CUDA device", "model.safetensors", "5ca97ebc6bbaaae3", "speaker 2",
    ):  # fmt: skip
        assert wanted in shown


@pytest.mark.parametrize("show", VIEWS)
def test_the_same_report_gives_the_same_view(report, show):
    assert show(report) == show(report)


@pytest.mark.parametrize("show", VIEWS)
def test_several_exports_each_have_a_column(report, show):
    twice = report.model_copy(update={"compressed": report.compressed * 2, "speedups": (*report.speedups, None)})
    assert "compressed 2 (onnx)" in re.sub(r"\\", "", show(twice))


@pytest.mark.parametrize("show", VIEWS)
def test_what_was_not_measured_leaves_no_hole(report, show):
    bare = report.model_copy(
        update={
            "original": report.original.model_copy(update={"latency": None, "macs": None, "peak_memory_bytes": None}),
            "compressed": changed(report, latency=None, macs=None, peak_memory_bytes=None, layers=()).compressed,
            "speedups": (None,),
            "steps": (),
            "limits": (),
        }
    )
    shown = show(bare)
    assert "not measured" in shown
    assert "not counted" in shown
    assert "not known" in shown
    assert "nan" not in shown.lower()
