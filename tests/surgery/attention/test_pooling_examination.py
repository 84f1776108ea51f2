"""How a pooling is called is found out by running it, and what is not a pooling is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.surgery.attention.pooling_examination import examine
from tests.surgery.poolings import (
    CALLS,
    EXPECTED,
    HOPS,
    WIDTH,
    Attentive,
    Loudest,
    model_of,
)


@pytest.mark.parametrize("kind", CALLS)
def test_how_a_pooling_is_called_is_found_out_by_running_it(kind):
    found = examine(model_of(kind), "pooling", Loudest().example, (11, 5))
    assert (found.call.sequence, found.call.axes, found.call.mask, found.call.mask_kind, found.sums) == EXPECTED[kind]
    assert (found.width, found.output_size) == (WIDTH, WIDTH * (found.sums or 1))


@pytest.mark.parametrize("lengths", [(11, 11), (3, 3)])
def test_a_model_of_one_length_has_its_features_last(lengths):
    found = examine(model_of("TimeFirst"), "pooling", Loudest().example, lengths)
    assert (found.call.axes, found.call.mask_kind) == ((1, 0, 2), "real")


class Conditioned(Attentive):
    def forward(self, states, speaker):
        return super().forward(states + speaker[:, None])


class Leaky(nn.Module):
    """Masks in the attention but not in the mean."""

    def __init__(self):
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(WIDTH, 2, 7, batch_first=True)

    def forward(self, states, real):
        return self.layer(states, src_key_padding_mask=~real).mean(1)


class Weights(Attentive):
    def forward(self, states, mask=None):
        return super().forward(states, mask), states


class Rows(Attentive):
    def forward(self, states, mask=None):
        return super().forward(states, mask).unflatten(1, (HOPS, WIDTH))


class Packed(Attentive):
    def forward(self, states):
        return super().forward(states.data[None].expand(2, -1, -1))


class Random(Attentive):
    def forward(self, states):
        return super().forward(states) + torch.randn(len(states), 1)


class Several(Attentive):
    def forward(self, *states):
        return super().forward(*states)


class Two(Attentive):
    def forward(self, states, others):
        return super().forward(states + others)


def twice(pool, states, real):
    return pool(states, real) + pool(states.flip(1), real.flip(1))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ((Conditioned, lambda pool, states, real: pool(states, states[:, 0])), "depends on `speaker` (float32 (3, 6))"),
        ((Leaky, lambda pool, states, real: pool(states, real).repeat(1, 3)), "depends on `real` (bool (3, 11))"),
        ((Weights, lambda pool, states, real: pool(states, real)[0]), "gives a tuple of 2 for a batch of 3"),
        ((Rows, lambda pool, states, real: pool(states, real).flatten(1)), "gives float32 (3, 3, 6) for a batch"),
        ((Attentive, twice), "is called 2 times in one run"),
        ((Attentive, lambda pool, states, real: states.mean(1).repeat(1, 3)), "is not called in one run"),
        ((Random, lambda pool, states, real: pool(states)), "different outputs for the same inputs"),
        ((Several, lambda pool, states, real: pool(states, real)), "takes `*arguments`"),
        (
            (Two, lambda pool, states, real: pool(states, 2.0 * states)),
            "is given several sequences among its arguments",
        ),
        ((nn.Flatten, lambda pool, states, real: pool(states)[:, :6].repeat(1, 3)), "size changes with the length"),
        ((Attentive, lambda pool, states, real: pool(states[:, -5:])), "it cannot be told which axis"),
    ],
)
def test_what_is_no_pooling_of_one_sequence_is_refused(kind, message):
    with pytest.raises(MethodError) as caught:
        examine(model_of(kind), "pooling", Loudest().example, (11, 6))
    assert message in str(caught.value)
    assert caught.value.hint
