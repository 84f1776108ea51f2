"""A rounded graph that does not compute what its rounded weights say is found, and not written."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from compressor.errors import ParityError
from compressor.runtimes.forward import WhenCalled
from compressor.testing import RandomTask, normal
from exporters.quantization import proof
from tests.onnx_graphs.graphs import recurrent

TASK = RandomTask({"x": {0: "batch", 1: "time"}}, {"y": {0: "batch", 1: "time"}}, normal(5))


def structure(tmp_path, rewritten):
    trials = SimpleNamespace(
        folder=tmp_path,
        writer=SimpleNamespace(restored=lambda forms: recurrent("GRU")),
        opened=lambda proto: WhenCalled(lambda: torch.tanh),
        forward=lambda forms, *, exact: rewritten if exact else None,
    )
    return proof.structure(trials, {}, TASK, atol=1e-5, rtol=1e-4, seed=0)


def test_a_graph_that_computes_what_its_rounded_weights_say_passes(tmp_path):
    assert structure(tmp_path, lambda x: torch.tanh(x) + 5e-5).passed


@pytest.mark.parametrize(
    "wrong",
    [lambda x: torch.tanh(x) + 3e-3, lambda x: torch.tanh(x).flip(1), lambda x: torch.tanh(x) * (x[:, :1] > -2)],
    ids=["a sum", "a direction", "a mask"],
)
def test_a_wrong_rewrite_is_refused(tmp_path, wrong):
    with pytest.raises(ParityError, match="the quantized graph does not compute what its rounded weights say"):
        structure(tmp_path, wrong)
