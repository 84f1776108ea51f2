"""A comparison names its file, and one that failed says how, with the tolerances and the remedy."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import pytest
import torch

from compressor.measure.diagnosis import diagnose
from compressor.report import Parity, ParityPoint
from exporters.parity import Disagreement, noise_of, of_file


def failed():
    point = ParityPoint(batch=2, length=7, max_absolute=0.5, max_relative=0.5, within=False, scale=1.0, needed=0.5)
    return Parity(atol=1e-5, rtol=1e-4, points=(point,))


@pytest.mark.parametrize("hint", ["", "leave it out"])
def test_a_disagreement_has_the_remedy_of_its_kind_unless_there_is_a_better_hint(hint):
    compared = failed()
    error = Disagreement.of(compared, "the file is off", hint=hint)
    assert error.parity is compared
    assert error.message.startswith("the file is off (atol 1e-05, rtol 0.0001): it is wrong at every size")
    assert error.hint == (hint or diagnose(compared).remedy)


def test_a_comparison_has_the_hash_of_the_file_that_was_compared(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"graph")
    named = of_file(failed(), path)
    assert named.sha256 == hashlib.sha256(b"graph").hexdigest()
    assert named.model_copy(update={"sha256": failed().sha256}) == failed()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_noise_is_that_of_the_precision_of_the_file_and_none_if_the_export_is_strict(precision):
    model, inputs = torch.nn.Linear(5, 3).eval(), [(torch.randn(2, 5),)]
    found = noise_of(model, SimpleNamespace(strict=False, computes_in=precision))(inputs)
    assert found.precision == precision
    assert found.largest > 0
    assert noise_of(model, SimpleNamespace(strict=True, computes_in=precision))(inputs) is None
