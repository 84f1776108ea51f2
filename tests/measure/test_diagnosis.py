"""A failed comparison is told by its kind, with a remedy of that kind."""

from __future__ import annotations

import pytest
import torch

from compressor.measure.diagnosis import diagnose
from compressor.report import Noise, OutputNoise
from tests.measure.test_parity import check


def kind(torch_forward, file_forward):
    found = check(torch_forward, file_forward)
    assert not found.passed
    return diagnose(found)


def masked(x):
    """A softmax whose first row sees nothing."""
    hidden = torch.zeros(x.size(1), x.size(1), dtype=torch.bool)
    hidden[0] = True
    return (x @ x.transpose(1, 2)).masked_fill(hidden, float("-inf")).softmax(-1)


def test_a_length_that_is_fixed_in_the_file():
    found = kind(lambda x: x.cumsum(1), lambda x: torch.cat([x[:, :83].cumsum(1), x[:, 83:]], 1))
    assert found.kind == "it is right at length 1, 83 and wrong at 173, 256: a size is fixed in it"
    assert "look for a length that the model's code takes as a number" in found.remedy


def test_a_batch_size_that_is_fixed_in_the_file():
    found = kind(lambda x: x, lambda x: x if len(x) == 1 else x.flip(0))
    assert found.kind == "it is right at batch size 1 and wrong at 2, 3, 5: a size is fixed in it"


def test_noise_names_the_value_to_set_and_that_value_is_enough():
    found = kind(lambda x: 10 * x, lambda x: 10 * x + 3e-4)
    assert found.kind.startswith("it is close everywhere: off by 0.0003 of ")
    assert found.remedy == "if the metric bears it, set `atol: 0.0004`"
    assert check(lambda x: 10 * x, lambda x: 10 * x + 3e-4, atol=4e-4).passed


def test_noise_of_large_outputs_is_measured_against_them():
    found = kind(lambda x: 1e4 * (1 + x.abs()), lambda x: 1e4 * (1 + x.abs()) + 5)
    assert found.remedy == "if the metric bears it, set `rtol: 0.0006`"


@pytest.mark.parametrize("grows", [lambda x: 1e-6 * x.size(1), lambda x: 3e-5])
def test_rounding_that_grows_with_the_length_is_not_a_fixed_size(grows):
    assert "it is close everywhere" in kind(lambda x: x, lambda x: x + grows(x)).kind


def test_rows_that_are_masked_whole():
    found = kind(masked, lambda x: masked(x).nan_to_num(1.0))
    assert found.kind == "PyTorch gives NaN in whole rows, as a softmax over a row that is masked whole does"
    assert "let every row see one position at least" in found.remedy


def test_nan_of_the_file_alone():
    found = kind(lambda x: x, lambda x: torch.where(x > 0, torch.nan, x))
    assert found.kind == "the file gives NaN where PyTorch gives numbers"


def test_random_outputs_of_either_side():
    assert kind(lambda x: x + torch.randn_like(x), lambda x: x).kind.startswith("the model draws random numbers")
    assert kind(lambda x: x, lambda x: torch.dropout(x, 0.5, True)).kind == "the file draws random numbers"


def test_anything_else_is_said_to_be_no_rounding():
    assert "wrong at every size, by more than rounding explains" in kind(torch.relu, torch.tanh).kind


@pytest.mark.parametrize(
    ("precision", "whose"), [("float32", "PyTorch in float32"), ("float16", "the model in float16")]
)
def test_what_is_close_is_told_beside_the_noise_that_is_allowed(precision, whose):
    noise = Noise(precision=precision, outputs=(OutputNoise(largest=2e-6, rms=1e-6, scale=4.0),), multiple=8.0)
    found = check(lambda x: x, lambda x: x + 3e-4).model_copy(update={"noise": noise})
    assert diagnose(found).kind.endswith(f"; {whose} is off by 2e-06 itself, and 8 times that is allowed")
