"""An Aaren exports as plain operators, whole or step by step, and agrees with PyTorch at sizes never seen."""

from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from compressor.formats import Job
from compressor.methods.aaren import Aaren
from compressor.methods.base import State
from compressor.nn.attention.aaren import AarenAttention
from compressor.onnx_graphs import targets
from compressor.onnx_graphs.partition import survey
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.steps import Steps
from compressor.testing import RandomTask, random_lengths
from exporters.onnx import Options, export
from tests.exporters.agreement import assert_agrees
from tests.methods.conftest import make_context
from tests.surgery.attentions import HEAD, VALUE, WIDTH, Nested, Packed, Stack, declared, randomized
from tests.surgery.attentions import HEADS as OWN_HEADS
from tests.tolerances import EXPORTED_FLOAT32

INPUT, HEADS, VALUES = 5, 3, 2
TIMED, LAST = {0: "batch", 1: "time"}, {0: "batch"}


def _layer():
    torch.manual_seed(0)
    return AarenAttention(
        HEADS, query_width=7, input_width=INPUT, head_width=4, value_head_width=VALUES, output_width=12,
        batch_first=True,
    ).eval()  # fmt: skip


class Sequence(nn.Module):
    """The layer as it is and with padding in front, and one in PyTorch's encoder with a causal mask and padding."""

    def __init__(self):
        super().__init__()
        self.own = _layer()
        self.encoder = nn.TransformerEncoderLayer(12, 2, 13, batch_first=True)
        self.encoder.self_attn = AarenAttention.from_attention(self.encoder.self_attn)
        nn.init.normal_(self.encoder.self_attn.query)

    def forward(self, features, lengths):
        length = features.size(1)
        padding = torch.arange(length) >= lengths[:, None]
        causal = nn.Transformer.generate_square_subsequent_mask(length)
        y = self.own(features, features, features, attn_mask=causal)[0]
        front = self.own(features, features, features, key_padding_mask=padding.flip(1))[0]
        behind = torch.zeros(padding.shape).masked_fill(padding, float("-inf"))
        return y, front, self.encoder(y, src_mask=causal, src_key_padding_mask=behind, is_causal=True)


class Step(nn.Module):
    """One layer, with scores beyond +-100."""

    def __init__(self):
        super().__init__()
        self.own = _layer()
        with torch.no_grad():
            self.own.query.mul_(150.0)

    def forward(self, x, a, c, m):
        output, state = self.own.step(x, (a, c, m))
        return output, *state


@pytest.fixture(scope="module")
def sequence(tmp_path_factory):
    task = RandomTask(
        {"features": TIMED, "lengths": LAST},
        {"y": TIMED, "front": TIMED, "encoded": TIMED},
        lambda batch, length: (torch.randn(batch, length, INPUT), random_lengths(batch, length)),
    )
    torch.manual_seed(0)
    model, path = Sequence().eval(), tmp_path_factory.mktemp("aaren") / "model.onnx"
    return model, task, path, export(Job(model, task, path, Options()))


def test_the_whole_sequence_agrees_with_pytorch_far_beyond_the_traced_length(sequence):
    model, _, path, artifact = sequence
    assert artifact.parity.passed
    inputs = torch.randn(7, 290, INPUT), random_lengths(7, 290)
    assert_agrees(path, model, *inputs)


def test_only_plain_operators_are_written_and_keys_are_folded_away(sequence):
    model, _, path, artifact = sequence
    assert not {"CumSum", "Scan", "Loop", "If", "ReduceLogSumExp"} & set(artifact.operators)
    stored = sum(onnx.numpy_helper.to_array(item).size for item in onnx.load(path).graph.initializer)
    keys = [model.own.k_proj, model.own.q_proj, model.encoder.self_attn.k_proj, model.encoder.self_attn.q_proj]
    unused = sum(parameter.numel() for layer in keys for parameter in layer.parameters())
    assert stored < sum(parameter.numel() for parameter in model.parameters()) - unused + 100


@pytest.mark.parametrize("size", [1, 4])
def test_a_step_carries_its_state_to_ten_times_the_traced_length(tmp_path, size):
    torch.manual_seed(0)
    model, path = Step().eval(), tmp_path / "step.onnx"
    states = {"a": LAST, "c": LAST, "m": LAST}
    task = RandomTask(
        {"x": LAST if size == 1 else TIMED} | states,
        {"y": LAST if size == 1 else TIMED} | {f"{name}_next": axes for name, axes in states.items()},
        lambda batch, length: (torch.randn(batch, length, INPUT), *_some_state(model.own, batch)),
        length=size, min_length=1, max_length=1 if size == 1 else 11,
    )  # fmt: skip
    artifact = export(Job(model, task, path, Options()))
    assert not {"CumSum", "Scan", "Loop", "If"} & set(artifact.operators)
    assert size > 1 or not {"Transpose", "Where", "ReduceMax"} & set(artifact.operators)  # one position is lean
    file, x, state, outputs = OnnxFile(path), torch.randn(2, 10 * 11, INPUT), model.own.initial_state(2), []
    for part in x.split(size, 1):
        output, *state = file(part, *state)
        outputs.append(output)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(outputs, 1), model.own(x, x, x)[0], **EXPORTED_FLOAT32)
        assert model.own._scores(x).abs().max() > 100


class Asking(nn.Module):
    """One layer with a memory cache whose gates are random, and a head."""

    def __init__(self):
        super().__init__()
        sizes = {"query_width": 7, "input_width": INPUT, "head_width": 4, "value_head_width": VALUES}
        cache = {"memory_cache": 2, "cache_segment": 3}
        self.own = AarenAttention(HEADS, **sizes, output_width=12, batch_first=True, **cache)
        nn.init.normal_(self.own.cache.ask.weight)
        self.head = nn.Linear(12, 4)

    def forward(self, x):
        return self.head(self.own(x, x, x)[0])


@pytest.mark.parametrize("chunk", [1, 4])
def test_a_memory_cache_streams_with_a_state_that_does_not_grow_and_gives_what_the_whole_file_gives(tmp_path, chunk):
    torch.manual_seed(0)
    model = Asking().eval()
    task = RandomTask({"x": TIMED}, {"y": TIMED}, lambda batch, length: (torch.randn(batch, length, INPUT),), model)
    artifact = export(Job(model, task, tmp_path / "model.onnx", Options(stream={"chunk": chunk})))
    assert not {"CumSum", "Scan", "Loop", "If"} & {*artifact.operators, *artifact.step.operators}
    whole, step = OnnxFile(tmp_path / "model.onnx"), Steps(tmp_path / "model.step.onnx")
    assert not survey(onnx.load(step.file.path), targets.get("qnn")).refusals
    names = [state.name.rpartition(".")[2] for state in step.info.states]
    assert names == ["sums", "weights", "largest", "described", "count"]
    x = torch.randn(2, 292, INPUT)  # ten times the longest traced length
    with torch.no_grad():
        torch.testing.assert_close(whole(x), model(x), **EXPORTED_FLOAT32)
        torch.testing.assert_close(step(x), model(x), **EXPORTED_FLOAT32)


def _some_state(layer, batch):
    with torch.no_grad():
        return layer.step(torch.randn(batch, 3, INPUT), layer.initial_state(batch))[1]


@pytest.mark.parametrize("kind", [Nested, Packed])
def test_attention_that_its_author_wrote_streams_once_its_query_is_learned(tmp_path, kind):
    model = randomized(Stack(kind, causal=True))
    task = RandomTask({"x": TIMED}, {"y": TIMED}, lambda batch, length: (torch.randn(batch, length, WIDTH),))
    task.attention, task.batches = declared(kind), lambda generator: iter([(task.example(3, 7), None)] * 2)
    new = Aaren(query="mean", distill_steps=0).apply(State(model), make_context(model, task)).state.model
    artifact = export(Job(new, task, tmp_path / "model.onnx", Options(stream=True)))
    whole, step = OnnxFile(tmp_path / "model.onnx"), Steps(tmp_path / "model.step.onnx")
    sizes = [(state.name.rpartition(".")[2], *state.shape[1:]) for state in step.info.states]
    assert artifact.step.parity.passed
    assert sizes == [("a", OWN_HEADS, VALUE if kind is Nested else HEAD), ("c", OWN_HEADS), ("m", OWN_HEADS)] * 2
    x = torch.randn(2, 200, WIDTH)  # ten times the traced length
    with torch.no_grad():
        torch.testing.assert_close(whole(x), new(x), **EXPORTED_FLOAT32)
        torch.testing.assert_close(step(x), new(x), **EXPORTED_FLOAT32)
    stored = sum(onnx.numpy_helper.to_array(item).size for item in onnx.load(step.file.path).graph.initializer)
    parameters = sum(parameter.numel() for parameter in new.parameters())
    folded = 2 * (2 * OWN_HEADS * HEAD - OWN_HEADS) * (WIDTH + 1)  # of two layers; a row a head is left
    assert stored < parameters - folded + 100
