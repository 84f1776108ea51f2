import io
import re

import pytest
from rich.console import Console

from compressor import render
from compressor.errors import ReportError
from compressor.render import view
from compressor.render.terminal import print_table
from compressor.report import (
    Beside,
    Drop,
    Interval,
    ParityPoint,
    Part,
    Quantization,
    QuantizationPoint,
    QuantizedMatrix,
    Report,
    SpeedUp,
)
from tests.render.conftest import score


def terminal(report, width=140):
    stream = io.StringIO()
    print_table(report, Console(file=stream, width=width))
    return stream.getvalue()


VIEWS = [render.markdown, render.html, terminal]


def changed(report, **compressed):
    return report.model_copy(update={"compressed": (report.compressed[0].model_copy(update=compressed),)})


def said(report):
    return " ".join(statement.text for statement in view.statements(report))


def test_a_report_survives_json(report):
    assert Report.from_json(report.to_json()) == report


def test_json_that_is_not_a_report_is_refused():
    with pytest.raises(ReportError, match="not a report of this tool"):
        Report.from_json("{}")


@pytest.mark.parametrize("show", VIEWS)
def test_every_view_shows_the_numbers_that_matter(report, show):
    shown = show(report)
    for wanted in (
        "gru-half", "0.9784", "0.9730", "55,689", "14,283", "10,275", "3.84x smaller", "5.12x smaller", "388 k",
        "10.7 MiB", "2.69x as fast", "2.61x to 2.77x", "batch 1, length 29, 1 thread", "Zeros alone do not make",
        "MISSED", "at least 3.00x", "percentile bootstrap over 370 samples",
    ):  # fmt: skip
        assert wanted in shown


@pytest.mark.parametrize("show", [render.markdown, render.html])
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


def test_noise_is_called_noise(report):
    noise = SpeedUp(ratio=1.004, interval=Interval(low=0.985, high=1.03), within_noise=True)
    text = said(report.model_copy(update={"speedups": (noise,)}))
    assert "No measurable change in speed: 1.00x, within noise (95 % interval 0.985x to 1.03x, which holds 1)." in text


def test_slower_is_called_slower(report):
    slower = SpeedUp(ratio=0.8, interval=Interval(low=0.78, high=0.83), within_noise=False)
    assert "The file is slower: 0.800x as fast" in said(report.model_copy(update={"speedups": (slower,)}))


def test_a_drop_that_may_be_chance_says_so_and_one_that_is_not_does_not(report):
    assert "0.0054 worse" in said(report)
    assert "on 370 samples this may be chance" in said(report)
    sure = Drop(value=0.02, interval=Interval(low=0.01, high=0.03))
    assert "chance" not in said(changed(report, drop=sure))


def test_without_a_recorded_drop_the_scores_are_subtracted(report):
    assert view.drop(report.original, changed(report, drop=None).compressed[0]).value == pytest.approx(0.0054)


def test_zeros_are_not_mentioned_where_there_are_none(report):
    dense = changed(report, nonzeros=report.compressed[0].parameters)
    assert "zero" not in said(dense)


def test_disagreement_with_pytorch_is_told(report):
    artifact = report.compressed[0].artifact
    wrong = ParityPoint(batch=2, length=13, max_absolute=0.4, max_relative=3.0, within=False)
    parity = artifact.parity.model_copy(update={"points": (*artifact.parity.points, wrong)})
    assert "disagrees with PyTorch" in said(changed(report, artifact=artifact.model_copy(update={"parity": parity})))


def test_a_rehearsal_is_told_before_anything_else(report):
    assert view.statements(report.model_copy(update={"quick": True}))[0].text.startswith("A rehearsal (--quick)")


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


NASTY = '<script>alert("x")</script> & $\\frac{1}{0}$ | `a` [red]b[/red] 日本'


@pytest.fixture
def nasty(report):
    """User text that is markup in every view, wherever a user's text can be."""
    step = report.steps[0]
    touched = step.changes[0].model_copy(update={"name": NASTY, "note": NASTY})
    step = step.model_copy(
        update={"method": NASTY, "notes": (NASTY,), "changes": (touched,), "options": {NASTY: NASTY}}
    )
    layer = report.compressed[0].layers[0].model_copy(update={"name": NASTY})
    after = changed(report, layers=(layer,)).compressed
    update = {"name": NASTY, "description": NASTY, "task": NASTY, "notes": (NASTY,), "recipe": {NASTY: NASTY}}
    return report.model_copy(update={**update, "steps": (step, *report.steps[1:]), "compressed": after})


def test_html_escapes_every_text_of_the_users(nasty):
    page = render.html(nasty)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 8


def test_markdown_escapes_text_outside_of_code(nasty):
    text, _, code = render.markdown(nasty).partition("```")
    assert "<script" not in text.replace("\\<", "")
    assert not re.search(r"(?<!\\)[\[\]`]", text)
    assert "script" in code


def test_every_row_of_a_markdown_table_has_as_many_cells_as_its_header(nasty):
    blocks = [block.splitlines() for block in render.markdown(nasty).split("\n\n") if block.startswith("|")]
    assert len(blocks) > 8
    for rows in blocks:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1


def test_the_terminal_prints_brackets_as_they_are(nasty):
    assert "[red]b[/red]" in terminal(nasty, width=400)


def test_recipe_text_cannot_end_its_code_block(report):
    text = render.markdown(report.model_copy(update={"recipe": {"note": "````\n# out"}}))
    assert "`````yaml" in text


def test_the_page_loads_nothing_from_anywhere(page):
    assert not re.search(r"https?:|//|@import|<link|<script|<img|<iframe|<object", page)
    assert all(target.startswith("#") for target in re.findall(r'(?:src|href)="([^"]*)"', page))
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", page))


def test_every_reference_inside_the_page_has_its_target(page):
    names = set(re.findall(r'\bid="([^"]*)"', page))
    wanted = set(re.findall(r'href="#([^"]*)"', page)) | set(re.findall(r"url\(#([^)]*)\)", page))
    assert wanted
    assert wanted <= names


def test_the_page_is_well_formed(page):
    from html.parser import HTMLParser

    class Balance(HTMLParser):
        void = frozenset({"meta", "br", "path", "use", "rect", "line", "circle"})

        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attrs):
            if tag not in self.void:
                self.open.append(tag)

        def handle_startendtag(self, tag, attrs):
            pass

        def handle_endtag(self, tag):
            if tag not in self.void:
                assert self.open.pop() == tag

    parser = Balance()
    parser.feed(page)
    assert parser.open == []


def test_controls_stand_beside_their_step_and_a_step_that_lost_to_one_says_so(report):
    step = report.steps[0].model_copy(
        update={
            "beside": (
                Beside(name="magnitude", parameters=7, nonzeros=5, score=score(0.61), final=score(0.99)),
                Beside(name="random", parameters=7, nonzeros=5, score=score(0.35), final=score(0.11)),
                Beside(name="other", note="it could not"),
            )
        }
    )
    with_controls = report.model_copy(update={"steps": (step, *report.steps[1:])})
    table = view.beside(with_controls, step)
    assert [row[0] for row in table.rows] == [step.method, "magnitude", "random", "other"]
    assert table.rows[3][-1] == "it could not"
    (statement,) = (item for item in view.statements(with_controls) if "beside it" in item.text)
    assert statement.tone == "bad"
    assert "beside it magnitude 0.9900, random 0.1100: magnitude did better" in statement.text
    for show in VIEWS:
        assert "it could not" in show(with_controls)
    assert view.beside(report, report.steps[0]) is None


def test_facts_about_what_a_step_made_are_shown_and_survive_json(report):
    step = report.steps[0].model_copy(update={"facts": {"nodes": 11.0, "density": 0.09375}})
    with_facts = report.model_copy(update={"steps": (step, *report.steps[1:])})
    assert view.facts(step).rows == (("nodes", "11"), ("density", "0.09375"))
    assert "| nodes | 11 |" in render.markdown(with_facts)
    assert "0.09375" in render.html(with_facts)
    assert Report.from_json(with_facts.to_json()) == with_facts
    assert view.facts(report.steps[0]) is None


def test_weights_beside_a_file_and_the_runtime_that_it_needs_are_shown(report):
    artifact = report.original.artifact.model_copy(
        update={
            "parts": (Part(path="original.onnx.data", bytes=4096, sha256="ab" * 32, purpose="weights"),),
            "needs": "ONNX Runtime 1.14",
        }
    )
    rows = dict(view.artifact_facts(artifact).rows)
    assert rows["with original.onnx.data"] == "4,096 B: weights; its bytes count"
    assert rows["needs"] == "ONNX Runtime 1.14 or newer"


def rounded(report):
    """The report with one matrix in integers and one that stayed in float16."""
    artifact = report.compressed[0].artifact
    kept = QuantizedMatrix(
        name="rnn.W_l0",
        operators=("LSTM",),
        shape=(1, 64, 10),
        form="half",
        bytes_before=2560,
        bytes_after=1280,
        errors={"integer": 0.8, "weights": 0.3},
        note="with 8-bit integers here too: relative output error 0.8, and `max_error` is 0.1",
    )
    fine = kept.model_copy(
        update={"name": "rnn.R_l0", "form": "integer", "errors": {"integer": 0.01}, "note": "", "bytes_after": 700}
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
    text = show(rounded(report), **({"width": 240} if show is terminal else {}))
    for fact in ("2,560 → 1,280", "float16 in the file", "8-bit integers", "relative output error 0.8", "4.3e-02"):
        assert fact in text


def test_a_rounded_file_of_another_format_is_near_and_does_not_agree(report):
    artifact = report.compressed[0].artifact
    loose = artifact.parity.model_copy(update={"atol": 0.25, "rtol": 0.0})
    text = said(changed(report, artifact=artifact.model_copy(update={"parity": loose})))
    assert "The rounded file is at most" in text
    assert "(allowed: 0.25)" in text
    assert "agrees with PyTorch" not in text


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
