"""A decomposition that prepares less gives the same, and leaves PyTorch as it was."""

import collections.abc

import pytest
import torch
import torch._export.utils
from torch import nn

from exporters.capture import decomposition_start, program


class Computes(nn.Module):
    """Operators that are decomposed, one that is kept whole, and a write into a tensor."""

    def forward(self, x):
        y = nn.functional.layer_norm(x, (3,)).clone()
        y[:, 0] = 0.0
        return nn.functional.scaled_dot_product_attention(y, y, y) + nn.functional.gelu(x)


def traced():
    return program.capture(Computes().eval(), [torch.ones(2, 5, 3)], {"x": {0: "batch", 1: "time"}})


def test_the_program_is_the_one_that_pytorch_gives():
    ours = decomposition_start.decomposed(traced(), {})
    theirs = traced().run_decompositions({})
    assert str(ours.graph) == str(theirs.graph)
    assert ours.graph_signature == theirs.graph_signature


def test_operators_are_looked_up_once(monkeypatch):
    calls = []
    look_up = torch._export.utils._materialize_cpp_cia_ops
    monkeypatch.setattr(torch._export.utils, "_materialize_cpp_cia_ops", lambda: (calls.append(1), look_up()))
    decomposition_start.decomposed(traced(), {})
    assert len(calls) == 1
    assert torch._export.utils._materialize_cpp_cia_ops is not look_up
    torch._export.utils._materialize_cpp_cia_ops()
    assert len(calls) == 2


def test_pytorch_is_as_before_after_a_failure():
    class Fails:
        def run_decompositions(self, table):
            assert torch._ops.Callable is not collections.abc.Callable
            assert isinstance(print, torch._ops.Callable)
            assert not isinstance(3, torch._ops.Callable)
            raise KeyError(len(table))

    with pytest.raises(KeyError, match="0"):
        decomposition_start.decomposed(Fails(), {})
    assert torch._ops.Callable is collections.abc.Callable
