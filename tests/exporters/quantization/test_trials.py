"""Errors of files: relative, over all batches, of the worst output."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from compressor.errors import ParityError
from exporters.quantization.proof import DEVIATION, deviation
from exporters.quantization.trials import Trials, as_tuple, relative_error


def norm(*parts):
    return math.sqrt(sum(float(part.double().square().sum()) for part in parts))


def test_an_error_is_relative_over_all_batches_and_that_of_the_worst_output():
    torch.manual_seed(0)
    wanted = [(torch.randn(2, 3), 10 * torch.randn(4)), (torch.randn(5, 3), 10 * torch.randn(4))]
    actual = [(a + 0.1 * torch.randn_like(a), b + 0.1 * torch.randn_like(b)) for a, b in wanted]
    apart = [
        norm(*(theirs[index] - ours[index] for ours, theirs in zip(wanted, actual, strict=True)))
        / norm(*(ours[index] for ours in wanted))
        for index in range(2)
    ]
    assert apart[0] > 2 * apart[1]
    assert relative_error(wanted, actual) == pytest.approx(apart[0])
    swapped = [[(b, a) for a, b in side] for side in (wanted, actual)]
    assert relative_error(*swapped) == pytest.approx(apart[0])
    assert relative_error(actual, wanted) != pytest.approx(apart[0])


def test_outputs_of_zeros_have_an_absolute_error_and_integers_none():
    zero, three = torch.zeros(2), torch.tensor([3.0, 4.0])
    assert relative_error([(zero,)], [(three,)]) == 5.0
    assert relative_error([(zero,)], [(zero,)]) == 0.0
    assert relative_error([(torch.tensor([1]), three)], [(torch.tensor([7]), three)]) == 0.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_or_has_another_shape_is_infinitely_far(bad):
    good = torch.ones(3)
    assert relative_error([(good, good)], [(good, torch.tensor([1.0, bad, 1.0]))]) == math.inf
    assert relative_error([(good,), (good,)], [(good,), (torch.ones(3, 1),)]) == math.inf
    assert relative_error([(torch.tensor([bad]),)], [(torch.ones(1),)]) == math.inf


def test_the_float_file_is_run_once_for_all_errors_and_once_for_those_of_single_matrices(tmp_path):
    written = []

    def draft(forms, exact):
        written.append((dict(forms), exact))
        return SimpleNamespace(SerializeToString=lambda: str(len(forms)).encode())

    def open_file(path):
        factor = 1.0 + int(path.read_bytes())
        return lambda x: factor * x

    batches = [(torch.ones(2),), (torch.ones(3),)]
    trials = Trials(SimpleNamespace(draft=draft), tmp_path, open_file, batches, batches[:1])
    assert trials.error(trials.forward({"a": "int4"})) == pytest.approx(1.0)
    assert trials.error(trials.forward({"a": "int4", "b": "half"}, exact=True)) == pytest.approx(2.0)
    assert written == [({"a": "int4"}, False), ({}, False), ({"a": "int4", "b": "half"}, True)]
    assert [trials.error_alone(trials.forward({"b": "half"})) for _ in range(2)] == [pytest.approx(1.0)] * 2
    assert [forms for forms, _ in written[3:]] == [{"b": "half"}, {}, {"b": "half"}]
    assert as_tuple(torch.ones(1)) == (torch.ones(1),)
    assert as_tuple([1, 2]) == (1, 2)


@pytest.mark.parametrize(("off", "passes"), [(0.99, True), (1.01, False)])
def test_a_file_may_be_three_times_as_far_off_at_one_size_as_over_all(off, passes):
    reference, x = torch.nn.Identity(), torch.ones(2, 3)
    compared = [(2, 3, (x,)), (1, 3, (x[:1],))]

    def rounded(inputs):
        return inputs * (1 + DEVIATION * 0.1 * off * (len(inputs) == 1))

    if passes:
        points = deviation(rounded, reference, compared, 0.1)
        assert [(point.batch, point.length, point.within) for point in points] == [(2, 3, True), (1, 3, True)]
        assert [point.error for point in points] == pytest.approx([0.0, 0.297], abs=1e-6)
    else:
        with pytest.raises(ParityError, match=r"further from PyTorch than 3 x max_error = 0\.3") as caught:
            deviation(rounded, reference, compared, 0.1)
        assert "batch 1, length 3: 0.303" in str(caught.value)


def test_a_file_is_loaded_when_it_is_called_so_that_the_float_file_comes_first_and_is_gone(tmp_path):
    told = []

    class File:
        def __init__(self, path):
            self.name = path.read_text()
            told.append(f"load {self.name}")

        def __call__(self, x):
            return x

        def __del__(self):
            told.append(f"free {self.name}")

    def draft(forms, exact):
        return SimpleNamespace(SerializeToString=("rounded" if forms else "float").encode)

    trials = Trials(SimpleNamespace(draft=draft), tmp_path, File, [(torch.ones(2),)], [])
    assert trials.error(trials.forward({"a": "int4"})) == 0.0
    assert told == ["load float", "free float", "load rounded", "free rounded"]
