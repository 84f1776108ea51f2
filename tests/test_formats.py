from __future__ import annotations

import subprocess
import sys

import pytest

from compressor.formats import EXPORTERS, Job, export

EVERY_FORMAT = pytest.mark.parametrize("word", EXPORTERS)


@EVERY_FORMAT
def test_every_format_has_options_whose_word_is_its_own(word):
    options = EXPORTERS[word].options()
    form = "step" if word == "c" else "sequence"
    assert (options.format, options.kind) == (word, (word, form))
    assert options.file_names() == (f"model{'.step' if form == 'step' else ''}.{options.ending}",)
    assert all(field.description for field in type(options).model_fields.values())


@EVERY_FORMAT
def test_an_original_that_a_format_cannot_hold_is_exported_for_onnx_runtime(word):
    assert EXPORTERS[word].options().fallback().in_onnx_runtime
    if word != "onnx":
        step = EXPORTERS[word].options(form="step", chunk=3)
        assert (step.fallback().kind, step.fallback().chunk) == (("ort", "step"), 3)


def test_a_step_file_has_its_form_in_its_name():
    mnn, onnx = EXPORTERS["mnn"].options, EXPORTERS["onnx"].options
    assert mnn(form="step", name="a.b").file_names() == ("a.b.step.mnn",)
    assert onnx(stream=True).file_names("original") == ("original.onnx", "original.step.onnx")
    assert onnx(stream=True).whole() == onnx()


def test_unrounded_options_keep_everything_but_the_precision():
    litert, onnx = EXPORTERS["litert"].options, EXPORTERS["onnx"].options
    assert litert(form="step", precision="int8", quantized_error=0.1).unrounded() == litert(form="step")
    half = onnx(precision="float16", float_io=False, shapes={"time": 4})
    assert half.unrounded() == onnx(shapes={"time": 4})
    assert [options.compresses for options in (half, half.unrounded())] == [True, False]


def test_a_job_goes_to_the_exporter_of_its_format(monkeypatch, tmp_path):
    monkeypatch.setattr("exporters.mnn.export", lambda job: (job.options.format, job.seconds < 60))
    assert export(Job(None, None, tmp_path / "model.mnn", EXPORTERS["mnn"].options())) == ("mnn", True)


def test_the_options_of_all_formats_load_no_torch():
    script = """if True:
        import sys
        from compressor.formats import EXPORTERS
        [exporter.options for exporter in EXPORTERS.values()]
        print([name for name in ("torch", "onnx", "numpy", "onnxruntime") if name in sys.modules])
    """
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
