"""A trace with an open length records less, and is the same."""

import pytest
import torch
from torch import nn

from compressor.errors import ExportError
from exporters.capture import program


class Model(nn.Module):
    """Two operators of one kind on sizes that are equal."""

    def forward(self, x):
        return torch.relu(torch.relu(x) - 0.5)


def traced(axes):
    return program.capture(Model().eval(), [torch.ones(2, 3)], {"x": axes})


def stores(trace):
    (first, *_) = trace.graph.nodes
    return first.meta["val"].fake_mode.cache_enabled


def has_lines(trace):
    return any("stack_trace" in node.meta for node in trace.graph.nodes)


@pytest.mark.parametrize(
    ("axes", "expected"),
    [({0: "batch", 1: "time"}, False), ({1: "time"}, False), ({0: "batch"}, True), ({}, True)],
)
def test_results_are_stored_and_lines_noted_unless_the_length_is_open(axes, expected):
    trace = traced(axes)
    assert (stores(trace), has_lines(trace)) == (expected, expected)


def test_settings_are_as_before_after_a_trace_that_fails():
    class Fails(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(ExportError, match=r"at `return x if x\.sum\(\) > 0 else -x`"):
        program.capture(Fails().eval(), [torch.ones(2, 3)], {"x": {1: "time"}})
    assert torch._dynamo.config.fake_tensor_cache_enabled
    assert not torch.fx.config.do_not_emit_stack_traces


def test_a_trace_has_the_same_operators_and_sizes_without_them(monkeypatch):
    short = traced({0: "batch", 1: "time"})
    monkeypatch.setattr(program.open_length, "TIME", "no axis has this name")
    whole = traced({0: "batch", 1: "time"})
    assert stores(whole)
    assert str(short.graph) == str(whole.graph)
    assert [node.meta["val"].shape for node in short.graph.nodes if "val" in node.meta] == [
        node.meta["val"].shape for node in whole.graph.nodes if "val" in node.meta
    ]
