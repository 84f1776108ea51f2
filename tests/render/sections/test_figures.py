import subprocess
import sys

import matplotlib
import pytest

from compressor.render.sections.figures import figures
from tests.render.views import changed


def test_a_full_report_has_a_plot_of_every_kind(report):
    titles = [plot.title for plot in figures(report)]
    assert titles == ["Metric and size by step", "Latency", "Sparsity by layer", "Step 3: retrain"]


def test_plots_take_their_colours_from_the_page(report):
    for plot in figures(report):
        assert "var(--compressed)" in plot.svg
        assert "#0102" not in plot.svg


def test_plots_are_the_same_each_time_and_hold_no_date(report):
    first, second = figures(report), figures(report)
    assert [plot.svg for plot in first] == [plot.svg for plot in second]
    assert not any("metadata" in plot.svg for plot in first)


def test_names_are_drawn_as_text_not_as_formulas(report):
    layer = report.compressed[0].layers[0].model_copy(update={"name": "$x^{$ <b>"})
    compressed = report.compressed[0].model_copy(update={"layers": (layer,)})
    (drawn,) = [
        plot for plot in figures(report.model_copy(update={"compressed": (compressed,)})) if "layer" in plot.title
    ]
    assert "$x^{$ &lt;b&gt;" in drawn.svg


def test_settings_of_matplotlib_are_left_as_they_were(report):
    before = dict(matplotlib.rcParams)
    figures(report)
    assert dict(matplotlib.rcParams) == before


def test_no_window_system_is_touched(report, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(report.to_json())
    code = (
        "import sys, pathlib, compressor.report, compressor.render.html;"
        "report = compressor.report.Report.from_json(pathlib.Path(sys.argv[1]).read_text());"
        "compressor.render.html.page(report); assert 'matplotlib.pyplot' not in sys.modules"
    )
    assert errors_of(code, str(path)) is None


def test_importing_the_views_loads_neither_matplotlib_nor_jinja():
    code = (
        "import sys, compressor.render.html, compressor.render.markdown, compressor.render.terminal;"
        "assert not {'matplotlib', 'jinja2', 'torch', 'numpy', 'rich'} & set(sys.modules)"
    )
    assert errors_of(code) is None


def errors_of(code, *arguments):
    """What a Python process that runs `code` says as it fails; None where it does not."""
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    return done.stderr if done.returncode else None


@pytest.mark.parametrize("rows", [0, 1])
def test_a_history_too_short_for_a_curve_has_none(report, rows):
    step = report.steps[2].model_copy(update={"history": report.steps[2].history[:rows]})
    assert not any("retrain" in plot.title for plot in figures(report.model_copy(update={"steps": (step,)})))


def test_history_with_gaps_is_drawn(report):
    rows = ({"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.4, "metric": 0.9}, {"epoch": 3, "loss": 0.3})
    step = report.steps[2].model_copy(update={"history": rows})
    (drawn,) = [plot for plot in figures(report.model_copy(update={"steps": (step,)})) if "retrain" in plot.title]
    assert "metric" in drawn.svg


def test_a_legend_names_only_what_is_in_the_plot(report):
    dense = changed(report, nonzeros=14283).model_copy(update={"steps": report.steps[:1]})
    (by_step, _, layers) = figures(dense)
    assert ">zero<" not in by_step.svg
    assert all(f">{name}<" in layers.svg for name in ("kept", "zero", "removed"))


def test_a_model_that_kept_every_element_has_no_plot_of_them(report):
    same = changed(report, layers=report.original.layers)
    assert "Sparsity by layer" not in [figure.title for figure in figures(same)]
