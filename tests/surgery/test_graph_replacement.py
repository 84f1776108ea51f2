"""The dense stack beside a graph has as many parameters."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.nn.recurrent.stack import RecurrentStack
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.surgery.graph_replacement import dense_size

LAYERS = st.builds(
    lambda kind, inputs, size, layers, bias: kind(inputs, size, layers, bias=bias),
    st.sampled_from([nn.RNN, nn.GRU, nn.LSTM]),
    st.integers(1, 7),
    st.integers(1, 13),
    st.integers(1, 3),
    st.booleans(),
)


@settings(deadline=None, max_examples=30)
@given(LAYERS, st.integers(1, 2000))
def test_the_dense_control_comes_nearest_to_the_number_of_parameters(old, parameters):
    def count(size):
        stack = UnevenRecurrent(old.mode, old.input_size, [[size]] * old.num_layers, bias=old.bias)
        return sum(part.numel() for part in RecurrentStack(stack, old.hidden_size).parameters())

    nearest = min(range(1, 46), key=lambda size: abs(count(size) - parameters))
    assert dense_size(old, parameters) == nearest
