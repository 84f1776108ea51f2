from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from compressor.errors import TaskError
from compressor.measure import parity
from compressor.runtimes.onnx_runtime import OnnxFile

BOTH = {"x": {0: "batch", 1: "time"}}


def task(inputs=None, *, shortest=1, longest=256, length=32, example=None):
    return SimpleNamespace(
        inputs=BOTH if inputs is None else inputs,
        length=length,
        min_length=shortest,
        max_length=longest,
        ranges={},
        example=example or (lambda batch, length: (torch.randn(batch, length, 5),)),
    )


def check(torch_forward, file_forward, on=None, seed=0, atol=1e-5):
    generator = torch.Generator().manual_seed(seed)
    return parity.check(torch_forward, file_forward, on or task(), atol=atol, rtol=1e-4, generator=generator)


@settings(deadline=None)
@given(shortest=st.integers(1, 60), span=st.integers(0, 300))
def test_points_are_many_inside_the_range_and_at_both_ends(shortest, span):
    found = parity.points(task(shortest=shortest, longest=shortest + span))
    lengths = [length for _, length in found]
    assert len(found) >= 4
    assert min(lengths) == shortest
    assert max(lengths) == shortest + span
    assert len({batch for batch, _ in found}) == 4
    assert len(set(lengths)) >= min(4, span + 1)


def test_points_of_a_usual_range_are_prime_between_the_ends():
    assert parity.points(task()) == ((1, 1), (2, 83), (5, 173), (1, 256), (3, 256))


def test_only_the_batch_varies_where_time_is_fixed():
    assert parity.points(task({"x": {0: "batch"}}, length=29)) == ((1, 29), (2, 29), (5, 29), (3, 29))


def test_only_the_length_varies_where_the_batch_is_fixed():
    found = parity.points(task({"x": {1: "time"}}, shortest=7, longest=29))
    assert found == ((1, 7), (1, 13), (1, 23), (1, 29))


def test_a_file_that_computes_the_same_passes_at_every_point(write):
    weight = np.random.default_rng(0).standard_normal((5, 3), dtype=np.float32)
    node = helper.make_node("MatMul", ["x", "W"], ["y"])
    path = write([node], {"x": ["batch", "time", 5]}, {"y": ["batch", "time", 3]}, {"W": weight})
    found = check(lambda x: x @ torch.from_numpy(weight), OnnxFile(path))
    assert found.passed
    assert len(found.points) == 5
    assert max(point.max_absolute for point in found.points) < 1e-5


def test_a_file_right_only_at_its_exports_length_is_caught():
    found = check(lambda x: x.sum(1), lambda x: x[:, :83].sum(1))
    assert not found.passed
    assert [point.within for point in found.points] == [True, True, False, False, False]


def test_errors_are_the_largest_over_all_outputs():
    def off(x):
        return x * 0 + 2.0, x * 0 + 4.004

    found = check(lambda x: (x * 0 + 2.0, x * 0 + 4.0), off)
    assert found.points[0].max_absolute == pytest.approx(0.004, rel=1e-3)
    assert found.points[0].max_relative == pytest.approx(0.001, rel=1e-3)
    assert not found.passed


def test_an_error_inside_the_tolerances_passes():
    assert check(lambda x: x, lambda x: x + 5e-6).passed


def test_the_relative_tolerance_is_a_part_of_each_output():
    assert check(lambda x: 1e4 + 0 * x, lambda x: 1e4 + 0 * x + 0.5).passed
    assert not check(lambda x: 1e-2 + 0 * x, lambda x: 1e-2 + 0 * x + 5e-5).passed


@pytest.mark.parametrize(
    ("file_forward", "note"),
    [
        (lambda x: (x, x), "the file gives 2 outputs, PyTorch 1"),
        (lambda x: x[:, 0], "output 0 has shape (1, 5), in PyTorch (1, 1, 5)"),
        (lambda x: x.double(), "output 0 is torch.float64, in PyTorch torch.float32"),
        (lambda x: x * float("nan"), "only the file has NaN in output 0: in 1 whole row"),
        (lambda x: torch.where(x == x.max(), torch.nan, x), "only the file has NaN in output 0: in 1 place"),
    ],
)
def test_what_cannot_be_compared_is_noted(file_forward, note):
    found = check(lambda x: x, file_forward)
    assert not found.passed
    assert found.points[0].note == note
    assert found.points[0].max_absolute == float("inf")


def test_nan_and_infinity_in_the_same_places_agree():
    def masked(x):
        return torch.where(x > 0.5, float("-inf"), torch.where(x < -0.5, float("nan"), x))

    assert check(masked, masked).passed


def test_an_infinity_that_the_file_lacks_is_a_disagreement():
    assert not check(lambda x: x * 0 - float("inf"), lambda x: x * 0 - 1e9).passed


def test_integers_must_be_equal():
    assert check(lambda x: x.argmax(-1), lambda x: x.argmax(-1)).passed
    assert not check(lambda x: x.argmax(-1) + 10**6, lambda x: x.argmax(-1) + 10**6 + 1).passed


def test_nested_outputs_are_compared_one_after_the_other():
    assert check(lambda x: (x, (x + 1, x + 2)), lambda x: (x, x + 1, x + 2)).passed


def test_a_file_that_fails_at_a_length_is_recorded_not_raised(write):
    node = helper.make_node("Reshape", ["x", "shape"], ["y"])
    path = write([node], {"x": ["batch", "time", 5]}, {"y": ["n", 5]}, {"shape": np.array([83 * 2, 5])})
    found = check(lambda x: x.reshape(-1, 5), OnnxFile(path))
    assert [point.within for point in found.points] == [False, True, False, False, False]
    assert "fails at x (1, 1, 5)" in found.points[0].note


def test_a_model_that_fails_inside_its_own_range_is_the_tasks_error():
    def short(x):
        raise RuntimeError(f"too short: {x.shape[1]}")

    with pytest.raises(TaskError, match="the model fails at batch 1, length 1: RuntimeError: too short: 1"):
        check(short, short)


def test_a_model_that_returns_a_dictionary_is_refused():
    with pytest.raises(TaskError, match="the model returns dict"):
        check(lambda x: {"y": x}, lambda x: x)


def test_random_inputs_follow_the_generator_and_leave_the_global_state():
    seen = []

    def keep(x):
        seen.append(x.clone())
        return x

    before = torch.get_rng_state()
    check(keep, torch.clone, seed=3)
    check(keep, torch.clone, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first, second) for first, second in zip(seen[:5], seen[5:], strict=True))


def test_a_model_that_writes_into_its_input_does_not_fool_the_comparison():
    assert not check(lambda x: x.add_(1.0), lambda x: x).passed


def test_a_model_that_writes_its_outputs_into_one_buffer_is_compared_with_what_it_gave():
    kept = torch.zeros(5, 256, 5)

    def forward(x):
        batch, length, size = x.shape
        kept[:batch, :length, :size] = x
        return kept[:batch, :length, :size]

    assert check(forward, torch.clone).passed


def test_a_further_axis_never_has_the_size_of_the_length_or_of_another_axis():
    on = task()
    on.ranges = {"width": (1, 256), "height": (1, 256)}
    for index, (_, length) in enumerate(parity.points(on)):
        sizes = parity.further_sizes(on, index)
        assert list(sizes) == ["width", "height"]
        assert len({length, *sizes.values()}) == 3
    assert sorted(parity.further_sizes(on, index)["width"] for index in range(4)) == [1, 83, 173, 256]


def test_pytorch_has_given_all_outputs_before_the_file_is_called_for_the_first_time():
    order = []

    def called(name):
        def forward(x):
            order.append(name)
            return x

        return forward

    generator = torch.Generator().manual_seed(0)
    between = lambda: order.append("between")  # noqa: E731
    found = parity.check(
        called("torch"), called("file"), task(), atol=1e-5, rtol=1e-4, generator=generator, between=between
    )
    count = len(found.points)
    assert order == ["torch"] * count + ["between"] + ["file"] * count
