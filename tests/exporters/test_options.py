from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from exporters.onnx import Options


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
        {"stream": False, "batch": "dynamic"},
        {"stream": True, "chunk": 0},
        {"stream": True, "batch": 2},
        {"stream": True, "cells": "scan"},
    ],
)
def test_options_outside_their_bounds_are_refused(wrong):
    with pytest.raises(ValidationError):
        Options(**wrong)


def test_every_option_is_documented():
    assert all(field.description for field in Options.model_fields.values())


def test_the_options_load_neither_torch_nor_onnx():
    script = (
        "import sys, exporters.onnx; print([m for m in ('torch', 'onnx', 'numpy', 'onnxruntime') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
