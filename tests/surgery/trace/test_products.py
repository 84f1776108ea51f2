"""Matrix products: what a weight of any kind consumes and produces."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from tests.surgery.trace.chains import CLASSES, INPUTS, WIDTH, Features, refusal, sequences, smaller


class Weights(nn.Module):
    """Parameters of the model's own code behind a layer."""

    def __init__(self, product):
        super().__init__()
        self.first = nn.Linear(INPUTS, WIDTH)
        self.weight, self.shift = nn.Parameter(torch.randn(WIDTH, CLASSES)), nn.Parameter(torch.randn(CLASSES))
        self.rows = nn.Parameter(torch.randn(CLASSES, WIDTH))
        self.scale = nn.Parameter(torch.randn(WIDTH))
        self.product = product

    def forward(self, x):
        return self.product(self, self.first(x))


READING = {
    "a product": (lambda own, y: y @ own.weight, "weight", 0),
    "a product of rows": (lambda own, y: y @ own.rows.t(), "rows", 1),
    "a product from the left": (lambda own, y: own.rows @ y.transpose(1, 2), "rows", 1),
    "mm": (lambda own, y: torch.mm(y.flatten(0, 1), own.weight), "weight", 0),
    "bmm": (lambda own, y: torch.bmm(y, own.weight.expand(y.size(0), -1, -1)), "weight", 0),
    "addmm": (lambda own, y: torch.addmm(own.shift, y.flatten(0, 1), own.weight), "weight", 0),
    "baddbmm": (lambda own, y: torch.baddbmm(own.shift, y, own.weight.expand(y.size(0), -1, -1)), "weight", 0),
    "linear": (lambda own, y: F.linear(y, own.rows), "rows", 1),
    "linear with a bias": (lambda own, y: F.linear(y, own.rows, own.shift), "rows", 1),
    "einsum": (lambda own, y: torch.einsum("btf,fc->btc", y, own.weight), "weight", 0),
    "einsum of rows": (lambda own, y: torch.einsum("cf,btf->btc", own.rows, y), "rows", 1),
    "tensordot": (lambda own, y: torch.tensordot(y, own.weight, dims=1), "weight", 0),
    "matmul of one step": (lambda own, y: torch.matmul(y[:, 0], own.weight), "weight", 0),
    "a vector of scales": (lambda own, y: (y * own.scale) @ own.weight, "scale", 0),
    "a vector that is added": (lambda own, y: torch.relu(y + own.scale) @ own.weight, "scale", 0),
    "a vector, then a bias": (lambda own, y: torch.addmv(own.shift[0], y[0], own.scale)[..., None], "scale", 0),
    "a vector, step by step": (lambda own, y: (y[0, 0] @ own.scale)[None] * own.shift, "scale", 0),
    "a product with a vector": (lambda own, y: (y @ own.scale)[..., None] * own.shift, "scale", 0),
}


@pytest.mark.parametrize("name", READING)
def test_a_parameter_loses_what_it_reads(name):
    product, parameter, axis = READING[name]
    found = smaller(Weights(product), sequences())
    assert found.first.out_features == WIDTH // 2
    assert found.get_parameter(parameter).size(axis) == WIDTH // 2


@pytest.mark.parametrize("bias", [False, True])
def test_a_bias_is_of_the_features_that_a_product_makes(bias):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Linear(INPUTS, 7), nn.Linear(WIDTH, CLASSES)
            self.weight = nn.Parameter(torch.randn(7, WIDTH))
            self.shift = nn.Parameter(torch.randn(WIDTH)) if bias else None

        def forward(self, x):
            y = torch.relu(self.first(x)).flatten(0, 1)
            return self.head(
                torch.relu(y @ self.weight if self.shift is None else torch.addmm(self.shift, y, self.weight))
            )

    found = smaller(Own(), sequences())
    assert (found.first.out_features, found.weight.size(0), found.head.in_features) == (4, 4, WIDTH)


def test_a_product_with_a_fixed_matrix_keeps_the_features():
    mixed = torch.randn(WIDTH, CLASSES).double()
    assert re.search(
        r"pairs it with a tensor of fixed size 12", refusal(Weights(lambda own, y: y @ mixed), sequences())
    )


def test_a_product_of_features_with_features_is_refused():
    assert re.search(
        "has units on both sides", refusal(Weights(lambda own, y: (y.transpose(1, 2) @ y) @ own.weight), sequences())
    )


def test_weights_of_steps_leave_features_apart():
    def attended(own, y):
        weights = torch.softmax(torch.ones(y.size(0), 2, y.size(1)).double().cumsum(-1), -1)
        return (weights @ y) @ own.weight

    assert smaller(Weights(attended), sequences()).weight.size(0) == WIDTH // 2


def test_scores_between_steps_need_the_same_features_of_both():
    def scored(own, y):
        scores = torch.softmax(y @ torch.tanh(y).transpose(1, 2), -1)
        return (scores @ y) @ own.weight

    assert smaller(Weights(scored), sequences()).weight.size(0) == WIDTH // 2


@pytest.mark.parametrize("bag", [False, True])
def test_columns_of_a_table_go_with_what_reads_them(bag):
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.EmbeddingBag(9, WIDTH, mode="sum") if bag else nn.Embedding(9, WIDTH)
            self.first, self.head = nn.Linear(INPUTS, WIDTH), nn.Linear(WIDTH, CLASSES)

        def forward(self, x):
            tokens = x.abs().sum(-1).long().clamp(max=8)
            y = self.table(tokens) if not bag else self.table(tokens).unsqueeze(1)
            return self.head(torch.relu(self.first(x) + y))

    found = smaller(Tokens(), sequences())
    assert (found.table.embedding_dim, found.head.in_features) == (WIDTH // 2, WIDTH // 2)


def test_a_tied_table_loses_columns_that_are_read_elsewhere():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.table = nn.Linear(INPUTS, WIDTH), nn.Embedding(CLASSES, WIDTH)

        def forward(self, x):
            tokens = x.abs().sum(-1).long().clamp(max=CLASSES - 1)
            return (self.first(x) + self.table(tokens)) @ self.table.weight.t()

    assert smaller(Tied(), sequences()).table.embedding_dim == WIDTH // 2


def test_a_fixed_feature_beside_units_stays_where_it_is():
    found = smaller(Features(lambda y: torch.cat([torch.ones_like(y[..., :1]) * y.size(1), y], -1)), sequences())
    assert (found.first.out_features, found.head.in_features) == (WIDTH // 2, WIDTH // 2 + 1)


def test_a_form_of_two_tensors_loses_features_of_both():
    class Form(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.other = nn.Linear(INPUTS, WIDTH), nn.Linear(INPUTS, WIDTH)
            self.head = nn.Bilinear(WIDTH, WIDTH, CLASSES)

        def forward(self, x):
            return self.head(self.first(x), self.other(x))

    found = smaller(Form(), sequences(), names=("first", "other"))
    assert found.head.weight.shape == (CLASSES, WIDTH // 2, WIDTH // 2)
