import re
import subprocess
import sys

import pytest

from compressor.render.plots import training
from compressor.render.sections.figures import figures
from compressor.render.sections.layers import figures as layer_figures
from tests.render.views import changed


def every_plot(report):
    curves = [curve for step in report.steps for curve in training.figures(step)]
    return [*figures(report), *layer_figures(report), *curves]


def hovers(plot):
    """What the marks of a plot say."""
    return re.findall(r"<title>(.*?)</title>", plot.svg)


def test_a_full_report_has_a_plot_of_every_kind(report):
    assert [plot.title for plot in every_plot(report)] == [
        "accuracy by step", "Parameters by step", "Latency",
        "Parameters by layer", "Bytes by layer", "MACs by layer", "Time by layer",
        "loss", "metric",
    ]  # fmt: skip


def test_plots_take_their_colours_from_the_page(report):
    for plot in every_plot(report):
        assert "var(--compressed)" in plot.svg
        assert not re.search(r'(fill|stroke)="(?!none|var\(--[a-z]+\)")', plot.svg)


def test_plots_are_the_same_each_time(report):
    assert [plot.svg for plot in every_plot(report)] == [plot.svg for plot in every_plot(report)]


def test_every_mark_says_its_value_on_hover(report):
    metric, parameters, latency = figures(report)
    assert hovers(metric) == [
        "original: 0.9784 (0.9644 to 0.9924)", "step 1, magnitude: 0.7100 (0.6640 to 0.7560)",
        "step 2, magnitude: 0.6600 (0.6120 to 0.7080)", "step 3, retrain: 0.9730 (0.9590 to 0.9870)",
        "exported file: 0.9730 (0.9590 to 0.9870)",
    ]  # fmt: skip
    assert "step 2, magnitude: 14,283 parameters, 10,275 of them not zero" in hovers(parameters)
    assert any(said.startswith("compressed: p10") for said in hovers(latency))
    assert f"epoch 12: {report.steps[2].history[-1]['loss']:.5f}" in hovers(training.figures(report.steps[2])[0])


def test_a_histogram_counts_every_timing_or_says_how_many_lie_beyond(report):
    latency = figures(report)[2]
    beyond = re.search(r"(\d+) of (\d+) timings", latency.description)
    drawn = sum(int(said.rpartition(": ")[2].split()[0]) for said in hovers(latency) if said.endswith(("run", "runs")))
    assert drawn == int(beyond[2]) - int(beyond[1]) == 400 - int(beyond[1])


def test_names_are_drawn_as_text(report):
    step = report.steps[0].model_copy(update={"method": "<b>"})
    renamed = figures(report.model_copy(update={"steps": (step,)}))[0]
    assert "&lt;b&gt;" in renamed.svg
    assert "<b>" not in renamed.svg


def test_importing_the_views_loads_neither_jinja_nor_torch_nor_numpy():
    code = (
        "import sys, compressor.render.html, compressor.render.markdown, compressor.render.terminal;"
        "assert not {'jinja2', 'torch', 'numpy', 'rich'} & set(sys.modules)"
    )
    assert errors_of(code) is None


def test_a_page_is_drawn_without_numpy_and_torch(report, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(report.to_json())
    code = (
        "import sys, pathlib, compressor.report, compressor.render.html;"
        "report = compressor.report.Report.from_json(pathlib.Path(sys.argv[1]).read_text());"
        "compressor.render.html.page(report); assert not {'numpy', 'torch'} & set(sys.modules)"
    )
    assert errors_of(code, str(path)) is None


def errors_of(code, *arguments):
    """What a Python process that runs `code` says as it fails; None where it does not."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else None


@pytest.mark.parametrize("rows", [0, 1])
def test_a_history_too_short_for_a_curve_has_none(report, rows):
    assert training.figures(report.steps[2].model_copy(update={"history": report.steps[2].history[:rows]})) == ()


def test_history_with_gaps_is_drawn(report):
    rows = ({"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.4, "metric": 0.9}, {"epoch": 3, "loss": 0.3})
    loss, metric = training.figures(report.steps[2].model_copy(update={"history": rows}))
    assert (loss.title, metric.title) == ("loss", "metric")
    assert hovers(metric) == ["epoch 2: 0.9000"]


def test_zeros_are_spoken_of_only_if_there_are_some(report):
    dense = changed(report, nonzeros=14283).model_copy(update={"steps": report.steps[:1]})
    assert figures(dense)[1].description.endswith("None of them is set to zero.")
    assert figures(report)[1].description.endswith("Amber: parameters that are zero.")


def test_a_rehearsal_has_no_plots_of_its_numbers(report):
    assert figures(report.model_copy(update={"quick": True})) == ()
