from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from exporters.onnx import Options
from exporters.quantization.options import Rounding
from exporters.stepping.options import Stream


def test_the_defaults_are_what_phones_read():
    options = Options()
    assert (options.format, options.name, options.opset, options.ir_version) == ("onnx", "model", 18, 8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"opset": 16},
        {"opset": 24},
        {"ir_version": 7},
        {"ir_version": 12},
        {"atol": 0.0},
        {"rtol": 1.0},
        {"atol": float("nan")},
        {"name": "a/b"},
        {"name": ""},
        {"format": "ort"},
        {"opsett": 18},
        {"chunk": 4},
        {"stream": "yes"},
        {"stream": 1},
        {"stream": {"chunk": 0}},
        {"stream": {"batch": 2}},
        {"stream": {"cells": "scan"}},
        {"stream": {"form": "step"}},
        {"rounding": {"max_error": 0.2}},
        {"precision": "float16", "rounding": {}},
        {"precision": "int8", "rounding": {"max_error": 0}},
        {"precision": "int8", "rounding": {"activations": "uint16"}},
    ],
)
def test_options_outside_their_bounds_are_refused(wrong):
    with pytest.raises(ValidationError):
        Options(**wrong)


def test_a_switch_is_the_defaults_of_its_options():
    assert Options(stream=True) == Options(stream={"chunk": 1})
    assert Options(stream=False) == Options()
    assert Options(stream=True).step == Stream()


def test_rounding_is_there_if_and_only_if_there_are_integers():
    assert Options(precision="int8").rounding == Rounding()
    assert Options(precision="float16").rounding is None


def test_every_option_is_documented():
    assert all(field.description for model in (Options, Stream, Rounding) for field in model.model_fields.values())


def test_the_options_load_neither_torch_nor_onnx():
    script = (
        "import sys, exporters.onnx; print([m for m in ('torch', 'onnx', 'numpy', 'onnxruntime') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
