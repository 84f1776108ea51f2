"""The noise of a model's own precision, and what a file is held to because of it."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from compressor.measure import float_noise, parity
from compressor.measure.agreement import Tolerances
from compressor.report import Noise, OutputNoise
from compressor.task.samples import Sample


class Sharp(nn.Module):
    """Attention whose scores are in the hundreds: float32 is off by more than the usual tolerances."""

    def __init__(self, scale=900.0, width=8):
        super().__init__()
        self.project = nn.Linear(width, 3 * width)
        self.scale = scale

    def forward(self, x):
        query, key, value = self.project(x).chunk(3, -1)
        hidden = torch.full((x.size(1), x.size(1)), float("-inf"), dtype=torch.float32).triu(1)
        return (self.scale * query @ key.transpose(1, 2) + hidden).softmax(-1) @ value


class Stateful(nn.Module):
    """A recurrent layer that is given a state of the default dtype, and a head."""

    def __init__(self, gain=1.0):
        super().__init__()
        self.rnn = nn.RNN(8, 32, batch_first=True)
        self.head = nn.Linear(32, 3)
        with torch.no_grad():
            for parameter in self.rnn.parameters():
                parameter.mul_(gain)
            self.head.weight.mul_(100)

    def forward(self, x):
        return self.head(self.rnn(x, torch.zeros(1, x.size(0), 32))[0].float())


class Chaotic(Stateful):
    """Amplifies rounding until it fills the outputs."""

    def __init__(self):
        super().__init__(gain=10.0)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


TASK = SimpleNamespace(
    inputs={"x": {0: "batch", 1: "time"}},
    ranges={},
    length=32,
    min_length=1,
    max_length=120,
    example=lambda batch, length: (torch.randn(batch, length, 8),),
)


def compared(model, file_forward, *, precision="float32", atol=1e-5, rtol=1e-4, **options):
    return parity.check(
        model,
        file_forward,
        TASK,
        atol=atol,
        rtol=rtol,
        generator=torch.Generator().manual_seed(0),
        noise_on=lambda inputs: float_noise.measure(model, inputs, precision),
        **options,
    )


def noise(model, precision="float32", length=120):
    return float_noise.measure(model, [(torch.randn(3, length, 8),)], precision)


@pytest.mark.parametrize(
    ("network", "in_float64"),
    [
        (Sharp, lambda model, x: model(x)),
        (Stateful, lambda model, x: model.head(model.rnn(x, torch.zeros(1, 3, 32).double())[0])),
    ],
)
def test_noise_of_float32_is_the_distance_to_float64_whatever_dtypes_the_code_names(network, in_float64):
    model, x = network().eval(), torch.randn(3, 120, 8)
    (output,) = float_noise.measure(model, [(x,)]).outputs
    with torch.no_grad():
        off = (model(x).double() - in_float64(copy.deepcopy(model).double(), x.double())).abs()
    assert output.largest == pytest.approx(float(off.max()), rel=1e-6)
    assert output.rms == pytest.approx(float(off.square().mean().sqrt()), rel=1e-6)
    assert next(model.parameters()).dtype == torch.get_default_dtype() == torch.float32


def test_noise_of_float16_is_a_tenth_of_a_percent_of_a_recurrent_models_outputs():
    (output,) = noise(Stateful(gain=2.0).eval(), "float16").outputs
    assert 1e-4 * output.scale < output.largest < 1e-2 * output.scale


def test_a_model_that_does_not_run_in_float64_has_no_measured_noise():
    class Stubborn(nn.Module):
        def forward(self, x):
            if x.dtype != torch.float32:
                raise TypeError
            return x

    assert noise(Stubborn()) is None


def test_a_file_as_exact_as_pytorch_passes_although_they_differ_by_more_than_the_tolerances():
    model = Sharp().eval()
    exact = copy.deepcopy(model).double()
    found = compared(model, lambda x: exact(x.double()).float())
    assert found.passed
    assert max(point.needed for point in found.points) > 1e-5
    plain = parity.check(
        model, lambda x: exact(x.double()).float(), TASK, atol=1e-5, rtol=1e-4, generator=torch.Generator()
    )
    assert not plain.passed


@pytest.mark.parametrize(("network", "precision"), [(Sharp, "float32"), (Stateful, "float32"), (Stateful, "float16")])
@pytest.mark.parametrize("places", ["one", "all"])
def test_a_file_that_is_off_by_ten_times_the_noise_never_passes(network, precision, places):
    model = network().eval()
    tolerances = {"atol": 1e-9, "rtol": 1e-9}
    probe = compared(model, model, precision=precision, **tolerances)
    (own,) = probe.noise.outputs
    assert probe.noise.multiple * own.largest < 0.01 * own.scale  # or else it would not count at all

    def wrong(x):
        y = model(x)
        off = torch.zeros_like(y)
        off[..., -1, -1] = 10 * own.largest
        return y + (off if places == "one" else 10 * own.rms)

    assert probe.passed
    assert not compared(model, wrong, precision=precision, **tolerances).passed


def test_a_model_whose_rounding_fills_its_outputs_excuses_nothing():
    model = Chaotic().eval()
    (own,) = noise(model).outputs
    assert own.largest > 0.1 * own.scale
    assert not compared(model, lambda x: model(x) + 0.01 * own.scale).passed


def test_outputs_below_the_tolerance_are_not_excused_by_it():
    class Tiny(Sharp):
        def forward(self, x):
            return 1e-6 * super().forward(x)

    model = Tiny(scale=1.0).eval()
    assert compared(model, lambda x: model(x) * (1 + 1e-6)).passed
    assert not compared(model, lambda x: model(x) * 0).passed


def test_real_inputs_are_compared_beside_examples_and_their_noise_counts():
    model = Sharp(scale=1.0).eval()
    real = Sample("evaluate", (50 * torch.randn(2, 7, 8),))
    found = compared(model, model, real=(real,))
    assert [(point.batch, point.length) for point in found.points if point.origin == "evaluate"] == [(2, 7)]
    assert found.noise.largest > 3 * compared(model, model).noise.largest


class Overflowing(nn.Module):
    """Exceeds what float32 holds in its first feature, and divides by zero in its second."""

    def __init__(self, *, difference):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1e30))
        self.difference = difference

    def forward(self, x):
        large = (x[..., :1].abs() + 1) * self.scale * self.scale
        return torch.cat([large - large if self.difference else large, x[..., 1:2].abs() / 0, x[..., 2:]], -1)


@pytest.mark.parametrize("difference", [False, True], ids=["infinity", "NaN"])
def test_a_model_that_is_finite_in_float64_only_has_no_measured_noise(difference):
    inputs = [(torch.randn(2, 3, 8),)]
    assert float_noise.measure(Overflowing(difference=difference).eval(), inputs) is None


def test_infinities_at_the_same_places_are_left_out_of_the_noise():
    class Divided(nn.Linear):
        def forward(self, x):
            return torch.cat([x[..., :1].abs() / 0, super().forward(x)], -1)

    found = float_noise.measure(Divided(8, 5).eval(), [(torch.randn(2, 3, 8) + 1,)])
    assert 0 < found.outputs[0].rms < found.outputs[0].largest < 1e-5
    assert 0 < found.outputs[0].scale < 100


@pytest.mark.parametrize(
    ("precision", "multiple", "largest", "passes", "fails"),
    [("float32", 8.0, 1e-10, 9e-9, 1.1e-8), ("float16", 4.0, 1e-8, 3.9e-8, 4.1e-8)],
)
def test_outputs_below_the_tolerance_are_right_to_a_hundredth_or_to_the_noise(
    precision, multiple, largest, passes, fails
):
    own = OutputNoise(largest=largest, rms=largest, scale=1e-6)
    tolerances = Tolerances(1e-5, 0.0, Noise(precision=precision, outputs=(own,), multiple=multiple))
    scale = torch.full((3,), 1e-6, dtype=torch.float64)
    held = [tolerances.hold(0, torch.full_like(scale, differs), scale) for differs in (passes, fails)]
    assert held == [True, False]


def test_an_output_that_is_infinite_everywhere_has_no_noise():
    class Nowhere(nn.Linear):
        def forward(self, x):
            return super().forward(x).abs() / 0

    found = float_noise.measure(Nowhere(8, 5).eval(), [(torch.randn(2, 3, 8),)])
    assert found.outputs == (OutputNoise(largest=0.0, rms=0.0, scale=0.0),)
