"""Reductions, sorting, pooling of attention: over steps they keep features apart, over features they mix them."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.surgery.trace.chains import WIDTH, Features, refusal, sequences, smaller

OVER_STEPS = {
    "sum": lambda y: y.sum(1),
    "sum, kept": lambda y: y.sum(1, keepdim=True),
    "sum of a list of axes": lambda y: torch.sum(y, dim=[1]),
    "mean": lambda y: y.mean(1),
    "mean from the end": lambda y: y.mean(-2),
    "mean, kept": lambda y: y.mean(dim=1, keepdim=True),
    "mean of samples and steps": lambda y: y.mean((0, 1), keepdim=True),
    "largest": lambda y: y.amax(1),
    "smallest": lambda y: y.amin(-2, keepdim=True),
    "max": lambda y: y.max(1)[0],
    "min": lambda y: y.min(1, keepdim=True).values,
    "norm": lambda y: torch.linalg.vector_norm(y, dim=1),
    "norm of another power": lambda y: torch.linalg.vector_norm(y, 3, dim=1, keepdim=True),
    "variance": lambda y: y.var(1),
    "variance, kept": lambda y: y.var(1, unbiased=False, keepdim=True),
    "standard deviation": lambda y: y.std(1),
    "variance and mean": lambda y: torch.cat(torch.var_mean(y, 1, keepdim=True), 1),
    "median": lambda y: y.median(1).values,
    "nanmedian": lambda y: y.nanmedian(1)[0],
    "mode": lambda y: torch.mode(y, 1)[0],
    "product": lambda y: y.prod(1),
    "sorted": lambda y: y.sort(1)[0],
    "sorted the other way": lambda y: torch.sort(y, dim=-2, descending=True, stable=True).values,
    "largest two": lambda y: y.topk(2, 1)[0],
    "third smallest": lambda y: y.kthvalue(3, 1)[0],
    "running sum": lambda y: y.cumsum(1),
    "running product": lambda y: y.cumprod(1),
    "running largest": lambda y: y.cummax(1)[0],
    "running smallest": lambda y: y.cummin(-2).values,
    "weights of steps": lambda y: torch.softmax(y, 1) * y,
}
SHIFTED = {
    "log of sums": lambda y: y.logsumexp(1),
    "log of sums, kept": lambda y: torch.logsumexp(y, (1,), keepdim=True),
}
OVER_FEATURES = {
    "mean": lambda y: y * y.mean(-1, keepdim=True),
    "largest": lambda y: y * y.amax(2, keepdim=True),
    "max": lambda y: y - y.max(-1, keepdim=True)[0],
    "variance": lambda y: y / (1 + y.var(-1, keepdim=True)),
    "product": lambda y: y + y.prod(-1, keepdim=True),
    "of all": lambda y: y * y.mean(),
    "of all, largest": lambda y: y * y.max(),
    "median": lambda y: y * y.median(-1, keepdim=True)[0],
    "log of sums": lambda y: y * y.logsumexp(-1, keepdim=True),
}
RANKED = {
    "sorted": lambda y: y.sort(-1)[0],
    "largest two": lambda y: F.pad(y.topk(2)[0], (0, 1)),
    "third smallest": lambda y: y * y.kthvalue(3, keepdim=True)[0],
    "running sum": lambda y: y.cumsum(-1),
    "running largest": lambda y: y.cummax(2)[0],
}
SUMS = {
    "sum": lambda y: y * y.sum(-1, keepdim=True),
    "sum of all": lambda y: y * y.sum(),
    "norm": lambda y: y / (1 + torch.linalg.vector_norm(y, dim=-1, keepdim=True)),
}


@pytest.mark.parametrize("name", OVER_STEPS)
def test_features_are_followed_through_a_reduction_over_steps(name):
    found = smaller(Features(OVER_STEPS[name], bias=False), sequences())
    assert (found.first.out_features, found.head.in_features) == (WIDTH // 2, WIDTH // 2)


@pytest.mark.parametrize("name", SHIFTED)
def test_what_a_reduction_makes_of_zeros_goes_into_the_bias_behind_it(name):
    assert smaller(Features(SHIFTED[name]), sequences()).head.in_features == WIDTH // 2
    why = refusal(Features(SHIFTED[name], bias=False), sequences())
    assert re.search("bias", why)


@pytest.mark.parametrize("name", OVER_FEATURES)
def test_features_that_are_reduced_together_stay(name):
    assert re.search(
        r"at test_reductions\.py:\d+ reduces across it and others", refusal(Features(OVER_FEATURES[name]), sequences())
    )


@pytest.mark.parametrize("name", RANKED)
def test_features_that_are_compared_with_each_other_stay(name):
    assert re.search(
        r"at test_reductions\.py:\d+ compares it with others", refusal(Features(RANKED[name]), sequences())
    )


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_over_features_is_the_same_without_those_that_are_zero(name):
    assert smaller(Features(SUMS[name], bias=False), sequences()).head.in_features == WIDTH // 2


@pytest.mark.parametrize("name", SUMS)
def test_features_that_are_not_zero_stay_in_a_sum(name):
    shifted = Features(lambda y: SUMS[name](torch.sigmoid(y)))
    why = refusal(shifted, sequences())
    assert re.search(r"at test_reductions\.py:\d+ sums it and others", why)


def test_directions_that_are_added_go_together():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.GRU(5, WIDTH, batch_first=True, bidirectional=True), nn.Linear(WIDTH, 3)

        def forward(self, x):
            return self.head(self.first(x)[0].unflatten(-1, (2, WIDTH if self.whole else -1)).sum(2))

        whole = False

    found = smaller(Both(), sequences())
    assert (found.first.hidden_size, found.head.in_features) == (WIDTH // 2, WIDTH // 2)


@pytest.mark.parametrize("axis", [1, 2])
def test_statistics_of_a_batch_normalisation_go_with_its_channels(axis):
    class Normed(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.head = nn.Linear(5, WIDTH), nn.BatchNorm1d(WIDTH), nn.Linear(WIDTH, 3)
            with torch.no_grad():
                self.norm.running_mean.normal_()
                self.norm.running_var.uniform_(0.5, 2)
                self.norm.bias.normal_()

        def forward(self, x):
            y = self.first(x)
            y = self.norm(y.transpose(1, 2)).transpose(1, 2) if axis == 1 else self.norm(y.flatten(0, 1))
            return self.head(y)

    found = smaller(Normed(), sequences())
    assert [part.numel() for part in (found.norm.weight, found.norm.bias, found.norm.running_var)] == [WIDTH // 2] * 3


class Attention(nn.Module):
    """Scaled dot-product attention of two heads of six features."""

    def __init__(self, *, values_only):
        super().__init__()
        self.first, self.other, self.head = nn.Linear(5, WIDTH), nn.Linear(5, WIDTH), nn.Linear(WIDTH, 3)
        self.values_only = values_only

    def forward(self, x):
        made = self.first(x).unflatten(-1, (2, -1)).transpose(1, 2)
        fixed = self.other(x).unflatten(-1, (2, -1)).transpose(1, 2)
        y = F.scaled_dot_product_attention(fixed if self.values_only else made, fixed, made)
        return self.head(y.transpose(1, 2).flatten(2))


def test_values_of_an_attention_lose_features():
    assert smaller(Attention(values_only=True), sequences()).head.in_features == WIDTH // 2


def test_queries_stay_since_their_number_is_in_the_scale():
    assert re.search(
        r"the attention at .* scales by the number of its features", refusal(Attention(values_only=False), sequences())
    )
