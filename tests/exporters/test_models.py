from __future__ import annotations

import onnx
import pytest
import torch
from torch import nn

from compressor.formats import Job
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.testing import RandomTask, random_lengths
from exporters.onnx import Options, export
from tests.exporters.conftest import features_task

WIDTH, VOCABULARY = 8, 13


class Mixed(nn.Module):
    """Embedding, convolutions, normalisation, attention, a GRU in an nn.Sequential, tied weights, padding masks."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.over_time = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
        self.norm = nn.BatchNorm1d(WIDTH)
        self.over_plane = nn.Conv2d(1, 2, 3, padding=1)
        self.gru = nn.Sequential(nn.GRU(2 * WIDTH, WIDTH, batch_first=True, dropout=0.0))
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.layer_norm = nn.LayerNorm(WIDTH)
        self.dropout = nn.Dropout(0.5)
        self.decoder = nn.Linear(WIDTH, VOCABULARY, bias=False)
        self.decoder.weight = self.embedding.weight

    def forward(self, words, lengths):
        valid = torch.arange(words.size(1)) < lengths[:, None]  # (B, T)
        x = self.norm(self.over_time(self.embedding(words).transpose(1, 2))).relu().transpose(1, 2)
        x = self.over_plane(x.unsqueeze(1)).permute(0, 2, 1, 3).flatten(2)  # (B, T, 2 * WIDTH)
        x, last = self.gru(x)
        attended, _ = self.attention(x, x, x, key_padding_mask=~valid, need_weights=False)
        x = self.layer_norm(x + self.dropout(attended))
        mean = (x * valid[..., None]).sum(1) / lengths[:, None]
        at_last_step = x.gather(1, (lengths - 1)[:, None, None].expand(-1, 1, WIDTH)).squeeze(1)
        return self.decoder(x), mean, at_last_step, last[-1]


class Reversed(nn.GRU):
    """A layer of the user's own that builds on PyTorch's."""

    def forward(self, features, state=None):
        output, last = super().forward(features.flip(1), state)
        return output.flip(1), last


class Repeated(nn.Module):
    """One GRU used twice, a subclass of it with equal weights, zero states made by hand, an output given twice."""

    def __init__(self):
        super().__init__()
        self.first = nn.GRU(5, 5, batch_first=True)
        self.twin = Reversed(5, 5, batch_first=True)
        self.twin.load_state_dict(self.first.state_dict())
        self.lstm = nn.LSTM(5, 5, 2, batch_first=True)
        self.hidden = nn.Parameter(torch.randn(5))  # also the name of an output

    def forward(self, features, unused):
        x, _ = self.twin(self.first(self.first(features)[0])[0])
        zeros = torch.zeros(2, features.size(0), 5)
        self.seen = x
        x, _ = self.lstm(x, (zeros, features.new_zeros(2, features.size(0), 5)))
        x = x * self.hidden
        return x, x


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    torch.manual_seed(0)
    task = RandomTask(
        {"words": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
        {"logits": {0: "batch", 1: "time"}, "mean": {0: "batch"}, "at_last_step": {0: "batch"}, "last": {0: "batch"}},
        lambda batch, length: (torch.randint(VOCABULARY, (batch, length)), random_lengths(batch, length)),
    )
    model, path = Mixed().eval(), tmp_path_factory.mktemp("mixed") / "mixed.onnx"
    return model, path, export(Job(model, task, path, Options()))


@pytest.fixture(scope="module")
def repeated(tmp_path_factory):
    torch.manual_seed(0)
    task = RandomTask(
        {"features": {0: "batch", 1: "time"}, "unused": {0: "batch"}},
        {"hidden": {0: "batch", 1: "time"}, "again": {0: "batch", 1: "time"}},
        lambda batch, length: (torch.randn(batch, length, 5), torch.randn(batch)),
    )
    model, path = Repeated(), tmp_path_factory.mktemp("repeated") / "repeated.onnx"
    return model, path, export(Job(model, task, path, Options()))


def test_a_mixed_model_agrees_with_pytorch_at_unseen_sizes(mixed):
    model, path, artifact = mixed
    words, lengths = torch.randint(VOCABULARY, (7, 37)), random_lengths(7, 37)
    with torch.no_grad():
        torch.testing.assert_close(OnnxFile(path)(words, lengths), model(words, lengths), atol=1e-5, rtol=1e-4)
    assert artifact.operators["GRU"] == 1


def test_axes_carry_the_names_of_the_task(mixed):
    *_, artifact = mixed
    assert [(value.name, value.dtype, value.shape) for value in (*artifact.inputs, *artifact.outputs)] == [
        ("words", "int64", ("batch", "time")),
        ("lengths", "int64", ("batch",)),
        ("logits", "float32", ("batch", "time", VOCABULARY)),
        ("mean", "float32", ("batch", WIDTH)),
        ("at_last_step", "float32", ("batch", WIDTH)),
        ("last", "float32", ("batch", WIDTH)),
    ]


def test_a_tied_weight_is_stored_once(mixed):
    _, path, _ = mixed
    sizes = [list(initializer.dims) for initializer in onnx.load(path).graph.initializer]
    assert sizes.count([VOCABULARY, WIDTH]) + sizes.count([WIDTH, VOCABULARY]) == 1


def test_equal_recurrent_weights_are_stored_once(repeated):
    _, path, artifact = repeated
    sizes = [tuple(initializer.dims) for initializer in onnx.load(path).graph.initializer]
    assert artifact.operators["GRU"] == 3
    assert sizes.count((1, 15, 5)) == 2  # input-to-hidden and hidden-to-hidden
    assert sizes.count((1, 30)) == 1


def test_zero_initial_states_leave_nothing_in_the_file(repeated):
    _, path, artifact = repeated
    nodes = [node for node in onnx.load(path).graph.node if node.op_type == "LSTM"]
    assert [len(node.input) for node in nodes] == [4, 4]
    assert not {"Expand", "ConstantOfShape", "Shape"} & set(artifact.operators)


def test_an_unused_input_and_an_output_given_twice_keep_their_names(repeated):
    _, path, artifact = repeated
    assert [value.name for value in artifact.inputs] == ["features", "unused"]
    assert artifact.parity.passed
    hidden, again = OnnxFile(path)(torch.randn(2, 3, 5), torch.randn(2))
    torch.testing.assert_close(hidden, again, atol=0, rtol=0)


class Product(nn.Module):
    """Multiplies by the product of two large weights."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Parameter(torch.randn(5, 3000)), nn.Parameter(torch.randn(3000, 2))

    def forward(self, features):
        return features @ (self.first @ self.second)


def test_a_product_of_large_weights_is_computed_once_and_for_all(tmp_path):
    artifact = export(
        Job(Product(), features_task({"y": {0: "batch", 1: "time"}}), tmp_path / "m.onnx", Options(atol=1e-3))
    )
    assert artifact.operators == {"MatMul": 1}
    assert artifact.bytes < 1000


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_a_bag_of_embeddings_is_exported(tmp_path, mode):
    task = RandomTask(
        {"words": {0: "batch", 1: "time"}}, {"bag": {0: "batch"}}, lambda *sizes: (torch.randint(VOCABULARY, sizes),)
    )
    model = nn.EmbeddingBag(VOCABULARY, WIDTH, mode=mode)
    path = tmp_path / "m.onnx"
    assert export(Job(model, task, path, Options())).parity.passed
    words = torch.randint(VOCABULARY, (7, 23))
    torch.testing.assert_close(OnnxFile(path)(words), model(words), atol=1e-5, rtol=1e-4)
