"""Every figure of a comparison is that of a loop over elements, and tolerances hold at their edges."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.measure.agreement import Tolerances, compare, wrong
from compressor.report import Noise, OutputNoise

ATOL, RTOL = 1e-3, 1e-2
NAN, INF = math.nan, math.inf
special = st.sampled_from([0.0, -0.0, NAN, INF, -INF, 1e-3, -1.0, 250.0])
numbers = st.one_of(st.floats(-100, 100, width=32), special)
offsets = st.sampled_from([0.0, 0.0, 5e-4, -5e-4, 0.5, -3.0])


def compared(expected, actual, noise=None, **options):
    return compare(expected, actual, batch=2, length=3, tolerances=Tolerances(ATOL, RTOL, noise), **options)


def in_a_loop(pairs):
    """Largest absolute and relative error, largest output, `atol` that would do, and whether all are within."""
    absolute, relative, size, needed, within = 0.0, 0.0, 0.0, 0.0, True
    for wanted, got in pairs:
        scale = abs(wanted) if math.isfinite(wanted) else 0.0
        same = wanted == got or (math.isnan(wanted) and math.isnan(got))
        off = 0.0 if same else abs(got - wanted)
        absolute, size = max(absolute, off), max(size, scale)
        relative = max(relative, off / (scale + ATOL))
        needed = max(needed, off - RTOL * scale)
        within = within and off <= ATOL + RTOL * scale
    return absolute, relative, size, needed, within


def figures(point):
    return point.max_absolute, point.max_relative, point.scale, point.needed, point.within


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.tuples(numbers, offsets), min_size=1, max_size=6), min_size=1, max_size=3))
def test_figures_are_those_of_a_loop_over_all_elements_of_all_outputs(outputs):
    expected = tuple(torch.tensor([value for value, _ in output]) for output in outputs)
    actual = tuple(torch.tensor([value + off for value, off in output]) for output in outputs)
    pairs = list(zip(torch.cat(expected).tolist(), torch.cat(actual).tolist(), strict=True))
    point = compared(expected, actual)
    assert figures(point) == pytest.approx(in_a_loop(pairs), nan_ok=True)
    assert (point.batch, point.length, point.note) == (2, 3, "")


def test_outputs_without_elements_agree():
    assert figures(compared((torch.empty(0, 3),), (torch.empty(0, 3),))) == (0.0, 0.0, 0.0, 0.0, True)


def test_an_output_that_agrees_excuses_none_before_it():
    good, bad = torch.ones(2), torch.zeros(2)
    assert not compared((good, good), (bad, good)).within
    assert not compared((good, good), (good, bad)).within


@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.bool])
def test_whole_numbers_are_equal_or_wrong_whatever_the_tolerances(dtype):
    wanted = torch.tensor([1, 1, 0]).to(dtype)
    assert compared((wanted,), (wanted.clone(),)).within
    assert not compared((1000 + wanted.long(),), (1000 + wanted.long() + torch.tensor([0, 1, 0]),)).within
    assert not compared((wanted,), (wanted.logical_not().to(dtype),)).within


def holes(*places, shape=(3, 2)):
    filled = torch.arange(float(math.prod(shape))).reshape(shape)
    for place in places:
        filled[place] = NAN
    return filled


@pytest.mark.parametrize(
    ("wanted", "got", "note"),
    [
        (holes(), holes((0, 1)), "only the file has NaN in output 0: in 1 place"),
        (holes(), holes((0, 1), (2, 0)), "only the file has NaN in output 0: in 2 places"),
        (holes(), holes(1), "only the file has NaN in output 0: in 1 whole row"),
        (holes(0, 2), holes(), "only torch has NaN in output 0: in 2 whole rows"),
        (holes(0), holes(0, 2), "only the file has NaN in output 0: in 1 whole row"),
        (holes(), holes(0, (2, 1)), "only the file has NaN in output 0: in 3 places"),
        (holes(0), holes(1), "output 0 has NaN in other places than torch's"),
        (torch.zeros(4), torch.full((4,), NAN), "only the file has NaN in output 0: in 1 whole row"),
        (torch.zeros(4), holes(2, shape=(4,)), "only the file has NaN in output 0: in 1 place"),
        (torch.tensor(NAN), torch.tensor(1.0), "only torch has NaN in output 0: in 1 place"),
    ],
)
def test_nan_on_one_side_is_told_with_its_holder_and_whether_whole_rows_are(wanted, got, note):
    found = compared((wanted,), (got,), reference="torch")
    assert found == wrong(2, 3, note)
    assert (found.within, found.max_absolute, found.max_relative) == (False, INF, INF)


def test_the_first_output_that_cannot_be_compared_is_named():
    good = torch.ones(2, 3)
    assert compared((good, good), (good, good.T)).note == "output 1 has shape (3, 2), in PyTorch (2, 3)"
    assert compared((good, good), (good, good.half())).note == "output 1 is torch.float16, in PyTorch torch.float32"
    assert compared((good,), (), reference="torch").note == "the file gives 0 outputs, torch 1"


def noise(largest, *, rms=None, scale=100.0, precision="float32", multiple=8.0):
    own = OutputNoise(largest=largest, rms=largest if rms is None else rms, scale=scale)
    return Noise(precision=precision, outputs=(own,), multiple=multiple)


def holds(found, *errors, scale=0.0):
    return Tolerances(0.0, 0.0, found).hold(0, torch.tensor(errors).double(), torch.full((len(errors),), scale))


@pytest.mark.parametrize(("precision", "part"), [("float32", 0.01), ("float16", 0.05)])
def test_noise_excuses_as_long_as_its_multiple_is_a_small_part_of_the_largest_output(precision, part):
    largest = part * 100.0 / 8
    small, much = (noise(factor * largest, precision=precision) for factor in (0.99, 1.01))
    assert holds(small, largest)
    assert not holds(much, largest)
    assert Tolerances(1e-5, 0.0, small).absolute == pytest.approx(0.99 * part * 100.0)
    assert Tolerances(1e-5, 0.0, much).absolute == 1e-5


@pytest.mark.parametrize(
    ("errors", "within"),
    [
        ((0.079, 0.0, 0.0, 0.0), True),
        ((0.081, 0.0, 0.0, 0.0), False),  # the largest is over 8 x 0.01
        ((0.047, 0.047, 0.047, 0.047), True),
        ((0.049, 0.049, 0.049, 0.049), False),  # the root mean square is over 8 x 0.006
        ((-INF, 0.0, 0.0, 0.0), False),
    ],
)
def test_neither_the_largest_error_nor_their_mean_square_is_over_the_multiple_of_the_models_own(errors, within):
    assert holds(noise(0.01, rms=0.006), *(abs(error) for error in errors)) == within


def test_the_absolute_tolerance_is_the_largest_of_the_given_one_and_all_that_noise_excuses():
    outputs = tuple(OutputNoise(largest=largest, rms=0.0, scale=100.0) for largest in (0.01, 0.03, 50.0))
    found = Noise(precision="float32", outputs=outputs, multiple=8.0)
    assert Tolerances(0.1, 0.0, found).absolute == pytest.approx(0.24)
    assert Tolerances(0.5, 0.0, found).absolute == 0.5
    assert Tolerances(0.5, 0.0).absolute == 0.5


@pytest.mark.parametrize(("scale", "within"), [(1e-3, False), (1.1e-3, True)])
def test_zeros_pass_only_for_outputs_that_are_larger_than_the_tolerance(scale, within):
    tolerances = Tolerances(1.2e-3, 0.0, noise(1e-9, scale=scale))
    larger = Tolerances(1.05e-3, 0.0, noise(1e-9, scale=scale))
    errors = torch.full((3,), 1e-3, dtype=torch.float64)
    assert not tolerances.hold(0, errors, errors)
    assert larger.hold(0, errors, errors) == within
