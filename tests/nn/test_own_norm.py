"""Normalisations of a model's own code are known by what they compute, and can lose features."""

import itertools

import pytest
import torch
from torch import nn
from torch.nn import functional

from compressor.errors import CheckpointError
from compressor.nn.own_norm import NormForm, WideOwnNorm, own_norm
from tests.tolerances import SAME_FLOAT64

WIDTH = 11


def parameter(*shape):
    return nn.Parameter(torch.rand(shape, dtype=torch.float64) + 0.5)


class Scaled(nn.Module):
    """A weight and a bias of any name."""

    def __init__(self, shape=(WIDTH,)):
        super().__init__()
        self.gain, self.shift, self.eps = parameter(*shape), parameter(*shape), 1e-6


class OutsideUnbiased(Scaled):
    """As in "The Annotated Transformer"."""

    def forward(self, x):
        return self.gain * (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + self.eps) + self.shift


class Inside(Scaled):
    def forward(self, x):
        var, mean = torch.var_mean(x, dim=-1, keepdim=True, unbiased=False)
        return (x - mean) / torch.sqrt(var + 1e-3) * self.gain + self.shift


class Functional(Scaled):
    def forward(self, x):
        return functional.layer_norm(x, (WIDTH,), self.gain, self.shift, self.eps)


class ChannelsFirst(Scaled):
    def __init__(self):
        super().__init__((1, WIDTH, 1))

    def forward(self, x):
        centred = x - x.mean(1, keepdim=True)
        return centred * torch.rsqrt(centred.square().mean(1, keepdim=True) + self.eps) * self.gain + self.shift


class TransposedAround(nn.LayerNorm):
    def __init__(self):
        super().__init__(WIDTH, dtype=torch.float64)

    def forward(self, x):
        return super().forward(x.transpose(1, -1)).transpose(1, -1)


class OfPictures(nn.LayerNorm):
    """As ConvNeXt has it: takes (B, C, H, W) only."""

    def __init__(self):
        super().__init__(WIDTH, eps=1e-6, dtype=torch.float64)

    def forward(self, x):
        x = functional.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class OnePlus(nn.Module):
    """A root mean square whose weight is stored as its distance from 1."""

    def __init__(self):
        super().__init__()
        self.weight, self.variance_epsilon = nn.Parameter(torch.rand(WIDTH).double() - 0.5), 1e-6

    def forward(self, hidden_states):
        scale = torch.rsqrt(hidden_states.pow(2).mean(-1, keepdim=True) + self.variance_epsilon)
        return hidden_states * scale * (1.0 + self.weight)


NORMS = (OutsideUnbiased, Inside, Functional, ChannelsFirst, TransposedAround, OnePlus)


@pytest.mark.parametrize("kind", NORMS)
def test_the_form_gives_what_the_module_gives_and_its_gradients(kind):
    torch.manual_seed(0)
    module = kind()
    wide = WideOwnNorm.from_module(module)
    x = (torch.randn(3, WIDTH, WIDTH, dtype=torch.float64) * 2 + 1).requires_grad_()
    direction = torch.randn_like(x)
    found, expected = wide(x), module(x)
    torch.testing.assert_close(found, expected, **SAME_FLOAT64)
    ours, theirs = (torch.autograd.grad(y, [x], direction)[0] for y in (found, expected))
    torch.testing.assert_close(ours, theirs, **SAME_FLOAT64)


def test_one_of_pictures_is_known_too():
    module, x = OfPictures(), torch.randn(2, WIDTH, 3, 5, dtype=torch.float64)
    torch.testing.assert_close(WideOwnNorm.from_module(module)(x), module(x), **SAME_FLOAT64)


@pytest.mark.parametrize("kind", NORMS)
def test_what_is_removed_counts_on_as_zeros(kind):
    torch.manual_seed(0)
    module, kept = kind(), torch.tensor([0, 2, 3, 7])
    wide = WideOwnNorm.from_module(module)
    axis = wide.form.axis
    for name, old in list(wide.named_parameters()):
        setattr(wide, name, nn.Parameter(old.detach()[kept]))
    size = [2, 5, 3]
    size[axis] = len(kept)
    x = torch.randn(size, dtype=torch.float64)
    size[axis] = WIDTH
    filled = torch.zeros(size, dtype=torch.float64).index_copy(axis, kept, x)
    torch.testing.assert_close(wide(x), module(filled).index_select(axis, kept), **SAME_FLOAT64)


class ForgetsTheMean(Scaled):
    """Nearly a layer normalisation: half of the mean is left."""

    def forward(self, x):
        return (x - x.mean(-1, keepdim=True) / 2) / (x.var(-1, keepdim=True) + self.eps).sqrt() * self.gain + self.shift


class Noisy(Inside):
    def forward(self, x):
        return super().forward(x) + (0.1 if self.training else 0.0)


class Nested(Inside):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(2, 2)


@pytest.mark.parametrize("kind", [ForgetsTheMean, Noisy, Nested, lambda: nn.Linear(3, 3), lambda: nn.LayerNorm(3)])
def test_anything_else_is_none(kind):
    assert own_norm(kind()) is None


class Written(nn.Module):
    """Any form, written out with the functions that a model's code would use."""

    def __init__(self, form):
        super().__init__()
        for name in ("first", "second"):
            if name in (form.weight, form.bias):
                shape = (form.width, 1) if form.axis == 1 else (form.width,)
                setattr(self, name, parameter(*shape))
        self.form, self.epsilon, self.momentum, self.groups = form, form.eps, 0.1, 3

    def forward(self, x):
        form, axis = self.form, self.form.axis
        if form.centred:
            x = x - x.mean(axis, keepdim=True)
        variance = x.square().sum(axis, keepdim=True) / (x.size(axis) - form.correction)
        y = x / (variance.sqrt() + form.eps if form.outside else (variance + form.eps).sqrt())
        if form.weight:
            y = y * (getattr(self, form.weight) + form.offset)
        return y + getattr(self, form.bias) if form.bias else y


ROLES = (("first", "second"), ("second", "first"), ("first", None), (None, "second"))
FORMS = [
    NormForm(width, axis, centred, correction, outside, offset, eps, weight, bias)
    for (axis, outside), (centred, correction), (weight, bias) in itertools.product(
        ((-1, False), (1, True), (-1, True), (1, False)), ((True, 0), (True, 1), (False, 0)), ROLES
    )
    for offset in ((0.0, 1.0) if weight else (0.0,))
    for width, eps in ((3, 1e-3), (7, 0.07))
]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_known_with_all_its_parts(form):
    torch.manual_seed(0)
    assert own_norm(Written(form)) == form


@pytest.mark.parametrize("eps", [1e-5, 1e-6, 1e-8, 1e-12, 1e-3, 0.0, 1e-4])
@pytest.mark.parametrize("outside", [True, False])
def test_an_epsilon_is_known_if_it_is_usual_or_the_modules_own(eps, outside):
    torch.manual_seed(0)
    module = Written(NormForm(5, -1, True, 0, outside, 0.0, eps, "first", "second"))
    x = 1e-3 * torch.randn(3, 5, dtype=torch.float64)
    torch.testing.assert_close(WideOwnNorm.from_module(module)(x), module(x), rtol=0.0, atol=1e-4)
    other = Written(module.form)
    del other.epsilon
    assert (own_norm(other) is None) == (eps == 1e-4)


@pytest.mark.parametrize("form", FORMS[::3])
def test_a_record_gives_a_layer_of_the_same_structure_and_state(form):
    torch.manual_seed(0)
    wide = WideOwnNorm.from_module(Written(form))
    assert WideOwnNorm.from_record(wide.record()).record() == wide.record()
    again = WideOwnNorm(**wide.record(), dtype=torch.float64)
    assert again.record() == wide.record()
    assert (wide.weight is None, wide.bias is None) == (form.weight is None, form.bias is None)
    x = torch.randn((2, form.width, 5) if form.axis == 1 else (2, 5, form.width), dtype=torch.float64)
    plain = Written(form)
    for name in ("first", "second"):  # a new layer scales by 1 and shifts by 0
        if name in (form.weight, form.bias):
            nn.init.constant_(getattr(plain, name), 1.0 - form.offset if name == form.weight else 0.0)
    torch.testing.assert_close(again(x), plain(x), **SAME_FLOAT64)
    again.load_state_dict(wide.state_dict())
    torch.testing.assert_close(again(x), wide(x), **SAME_FLOAT64)


def test_mode_type_and_what_is_trained_are_kept():
    module = Inside().float().eval()
    module.shift.requires_grad_(False)
    wide = WideOwnNorm.from_module(module)
    assert not wide.training
    assert (wide.weight.requires_grad, wide.bias.requires_grad) == (True, False)
    assert wide.weight.dtype == wide.bias.dtype == torch.float32
    assert WideOwnNorm.from_module(Inside()).training
    assert wide(torch.randn(2, WIDTH).half()).dtype == torch.float16


class Odd(Inside):
    """Its normalisation, with other parameters or buffers."""

    def __init__(self, **others):
        super().__init__()
        for name, value in others.items():
            (self.register_parameter if isinstance(value, nn.Parameter) else self.register_buffer)(name, value)


class OfOne(Scaled):
    def __init__(self):
        super().__init__((1,))

    def forward(self, x):
        return Inside.forward(self, x)


class Square(nn.Module):
    """Its weight has as many elements as the axis, but two axes."""

    def __init__(self):
        super().__init__()
        self.weight = parameter(2, 3)

    def forward(self, x):
        return x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt() * self.weight.flatten()


class Tupled(Inside):
    def forward(self, x):
        return (super().forward(x),)


class Narrowing(Inside):
    def forward(self, x):
        return super().forward(x).float()


@pytest.mark.parametrize(
    "kind",
    [
        lambda: Odd(third=parameter(WIDTH)),
        lambda: Odd(mean=torch.zeros(WIDTH)),
        lambda: Odd(gain=parameter(1)),
        OfOne,
        Square,
        Tupled,
        Narrowing,
        nn.Identity,
    ],
)
def test_other_parameters_buffers_or_results_are_no_normalisation(kind):
    module = kind()
    assert own_norm(module) is None
    with pytest.raises(ValueError, match=f"a {type(module).__name__} is not a normalisation that is known"):
        WideOwnNorm.from_module(module)


def test_looking_at_a_module_leaves_it_and_the_random_numbers_as_they_were():
    module = Inside()
    before, state = [part.clone() for part in module.parameters()], torch.get_rng_state()
    assert own_norm(module) == own_norm(module)
    assert torch.equal(torch.get_rng_state(), state)
    assert module.training
    assert all(torch.equal(one, two) for one, two in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"features": WIDTH + 1}, "cannot be left"),
        ({"axis": 2}, "axis is -1 or 1"),
        ({"axis": 0}, "axis is -1 or 1"),
        ({"correction": 2}, "axis is -1 or 1, correction and offset are 0 or 1"),
        ({"offset": 0.5}, "correction and offset are 0 or 1"),
        ({"features": 1, "width": 1, "correction": 1}, "one feature has no unbiased variance"),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(change, text):
    record = WideOwnNorm.from_module(Inside()).record()
    assert WideOwnNorm.from_record(record).features == WIDTH
    with pytest.raises(CheckpointError, match=text):
        WideOwnNorm.from_record(record | change)


@pytest.mark.parametrize("change", [{"axis": 1}, {"correction": 1}, {"offset": 1.0}, {"features": 1, "width": 2}])
def test_a_record_at_the_edge_is_taken(change):
    record = WideOwnNorm.from_module(Inside()).record() | change
    assert WideOwnNorm.from_record(record).record() == record
