"""A failed comparison is told by its kind, with a remedy of that kind."""

from __future__ import annotations

import pytest
import torch

from compressor.measure.diagnosis import RANDOM_FILE, RANDOM_MODEL, diagnose, table
from compressor.report import Noise, OutputNoise, Parity, ParityPoint
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


def point(batch=1, length=10, *, within=False, off=0.5, scale=1.0, note="", relative=None, needed=None, **sizes):
    return ParityPoint(
        batch=batch,
        length=length,
        max_absolute=off,
        max_relative=off / scale if relative is None else relative,
        within=within,
        scale=scale,
        needed=off if needed is None else needed,
        note=note,
        sizes=sizes,
    )


def told(*points, noise=None):
    return diagnose(Parity(atol=1e-5, rtol=1e-4, points=points, noise=noise))


PYTORCH, FILE = "only PyTorch has NaN in output 0: in 3 places", "only the file has NaN in output 0: in 1 place"
ROWS = "only PyTorch has NaN in output 1: in 2 whole rows"


@pytest.mark.parametrize(
    ("notes", "kind"),
    [
        ((PYTORCH, FILE), "PyTorch gives NaN where the file does not"),
        ((PYTORCH, ROWS), "PyTorch gives NaN in whole rows"),
        ((FILE, "its shape"), "the file gives NaN where PyTorch gives numbers"),
        ((FILE, RANDOM_FILE), "the file draws random numbers"),
        ((RANDOM_FILE, RANDOM_MODEL), "the model draws random numbers"),
        (("its shape", ""), "it is wrong at every size"),
    ],
)
def test_of_several_kinds_that_is_told_which_explains_the_others(notes, kind):
    assert told(*(point(note=note) for note in notes)).kind.startswith(kind)


@pytest.mark.parametrize(("precision", "remedy"), [("float32", "mask with a large"), ("float16", "beyond 65504")])
def test_nan_of_a_file_of_halves_is_a_number_too_large(precision, remedy):
    noise = Noise(precision=precision, outputs=(), multiple=4.0)
    assert remedy in told(point(note=FILE), noise=noise).remedy


@pytest.mark.parametrize(
    ("right", "wrong", "kind"),
    [
        ({"length": 7}, {"length": 9}, "it is right at length 7 and wrong at 9: a size is fixed in it"),
        ({"batch": 2}, {"batch": 3}, "it is right at batch size 2 and wrong at 3: a size is fixed in it"),
        ({"width": 4}, {"width": 6}, "it is right at width 4 and wrong at 6: a size is fixed in it"),
        ({"batch": 2}, {"batch": 2, "off": 0.6}, "it is wrong at every size"),
    ],
)
def test_a_size_at_which_all_are_right_and_no_wrong_one_is_told(right, wrong, kind):
    assert told(point(within=True, off=1e-7, **right), point(**wrong)).kind.startswith(kind)


@pytest.mark.parametrize(
    ("off", "length", "sudden"),
    [
        (29e-6 * 4, 40, False),  # thirty times as much for each position more is rounding that adds up
        (31e-6 * 4, 40, True),
        (29e-6, 10, False),
        (0.9e-5, 10, False),  # as little as this is rounding, whatever it was elsewhere
    ],
)
def test_rounding_grows_with_the_length_and_a_fixed_size_is_sudden(off, length, sudden):
    right = point(3, 10, within=True, off=1e-6 if off > 1e-5 else 1e-12)
    found = told(right, point(2, length, off=off))
    assert found.kind.startswith("it is right at" if sudden else "it is close everywhere")


def test_little_is_a_hundredth_of_the_largest_output():
    assert told(point(off=0.0099)).kind.startswith("it is close everywhere: off by 0.0099 of 1 at most")
    assert told(point(off=0.0101)).kind.startswith("it is wrong at every size")
    assert told(point(off=0.0099), point(off=0.5)).kind.startswith("it is wrong at every size")
    assert told(point(off=0.001, scale=10.0), point(off=0.002, scale=10.0)).kind.startswith(
        "it is close everywhere: off by 0.002 of 10 at most"
    )


@pytest.mark.parametrize("needed", [1e-6, 1.2e-4, 9.9e-3, 0.05, 0.09])
def test_the_value_to_set_has_one_digit_and_is_a_little_more_than_what_is_needed(needed):
    found = told(point(off=0.9, scale=100.0, needed=needed / 3), point(off=0.9, scale=100.0, needed=needed))
    value = float(found.remedy.partition("`atol: ")[2].rstrip("`"))
    assert value == float(f"{value:.0e}")
    assert 1.1 * needed <= value * (1 + 1e-9) <= 2.3 * needed


def test_if_no_absolute_tolerance_is_enough_a_relative_one_is_told_or_none():
    large = {"off": 5.0, "scale": 1000.0, "needed": 5.0}
    assert "`rtol: 0.006`" in told(point(relative=0.005, **large), point(relative=0.001, **large)).remedy
    assert "some of them near zero" in told(point(relative=0.005, **large), point(relative=0.5, **large)).remedy


def test_the_table_has_a_row_for_each_point_with_further_sizes_and_what_is_wrong():
    given = (point(2, 7, within=True, off=1e-6, width=5), point(3, 9, note="its shape", width=11), point(1, 1, width=4))
    lines = table(Parity(atol=1e-5, rtol=1e-4, points=given)).splitlines()
    assert lines[0].split() == ["batch", "length", "width", "max", "abs", "max", "rel"]
    assert lines[1].split() == ["2", "7", "5", "1.00e-06", "1.00e-06"]
    assert lines[2].split() == ["3", "9", "11", "5.00e-01", "5.00e-01", "its", "shape"]
    assert lines[3].split()[-2:] == ["too", "large"]
    assert told(*given).of(Parity(atol=0, rtol=0, points=given)).endswith("\n".join(lines))
