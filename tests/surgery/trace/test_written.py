"""Tensors that a model makes and fills: buffers for its steps, states of zeros, padding."""

import re

import pytest
import torch
from torch import nn

from tests.surgery.trace.chains import WIDTH, Features, refusal, sequences, smaller


def filled(made):
    """The features written step by step into what `made` gives."""

    def function(y):
        buffer = made(y)
        for step in range(y.size(1)):
            buffer[:, step] = torch.tanh(y[:, step])
        return buffer

    return function


@pytest.mark.parametrize(
    "made",
    [
        lambda y: y.new_empty(y.shape),
        lambda y: y.new_zeros(*y.shape),
        lambda y: torch.empty(y.shape, dtype=y.dtype),
        lambda y: torch.zeros(y.size(0), y.size(1), y.size(2), dtype=y.dtype),
        torch.empty_like,
        torch.ones_like,
        lambda y: torch.full_like(y, 3.0),
        lambda y: y.new_full(y.shape, 2.0),
        lambda y: torch.empty_strided(y.shape, y.stride(), dtype=y.dtype),
    ],
)
def test_a_buffer_that_is_filled_step_by_step(made):
    found = smaller(Features(filled(made), bias=False), sequences())
    assert (found.first.out_features, found.head.in_features) == (WIDTH // 2, WIDTH // 2)


def _first_half(value):
    def function(y):
        buffer = torch.full_like(y, value)
        buffer[:, :3] = y[:, :3]
        return buffer

    return function


def test_zeros_that_are_left_of_a_buffer_shrink_with_the_rest():
    assert smaller(Features(_first_half(0.0), bias=False), sequences()).head.in_features == WIDTH // 2


def test_what_differs_from_step_to_step_in_place_of_a_feature_cannot_be_taken_up():
    why = refusal(Features(_first_half(1.5)), sequences())
    assert re.search("differs by", why)


def test_steps_of_a_cell_are_stacked_in_front_of_zeros():
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.GRUCell(5, WIDTH), nn.Linear(WIDTH, 3)

        def forward(self, x):
            h = x.new_zeros(x.size(0), self.first.hidden_size)
            steps = [h]
            for step in x.unbind(1):
                h = self.first(step, h)
                steps.append(h)
            return self.head(torch.stack(steps, 1))

    found = smaller(Loop(), sequences())
    assert (found.first.hidden_size, found.head.in_features) == (WIDTH // 2, WIDTH // 2)
