"""Recurrent layers in Torch-Pruning's scripts: cut right, seen through every output, compared."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.errors import SurgeryError
from compressor.torch_pruning import RecurrentMagnitudeImportance, RecurrentPruner, recurrent, step

pytestmark = pytest.mark.filterwarnings("ignore")  # Torch-Pruning warns of parameters that it does not know

FRESH: dict[str, Any] = {"in_channel_groups": {}, "out_channel_groups": {}, "num_heads": {}}
"""Torch-Pruning shares its default dictionaries between pruners."""
KINDS = (nn.RNN, nn.GRU, nn.LSTM)
LAYERS = [(kind, layers, both) for kind in KINDS for layers in (1, 3) for both in (False, True)]


class Tagger(nn.Module):
    """Linear, a recurrent layer, a head on all steps, on the last one, or on the last state."""

    def __init__(self, kind: type[nn.RNNBase], reads: str, **options: Any):
        super().__init__()
        self.enter = nn.Linear(5, 6)
        self.rnn = kind(6, 8, batch_first=True, **options)
        self.head = nn.Linear((self.rnn.proj_size or 8) * (2 if self.rnn.bidirectional else 1), 3)
        self.reads = reads

    def forward(self, x: Tensor) -> Tensor:
        y, state = self.rnn(torch.relu(self.enter(x)))
        if self.reads == "outputs":
            return self.head(y)
        if self.reads == "last":
            return self.head(y[:, -1])
        h = state[0] if isinstance(state, tuple) else state
        return self.head(torch.cat([h[-2], h[-1]], 1) if self.rnn.bidirectional else h[-1])


def pruner_of(model: nn.Module, x: Any, *, ratio: float = 0.5, **options: Any) -> Any:
    options = {"ignored_layers": [model.head], **options}
    importance = RecurrentMagnitudeImportance()
    return torch_pruning.pruner.MetaPruner(
        model, x, importance=importance, pruning_ratio=ratio, **FRESH, **recurrent(model), **options
    )


@pytest.mark.parametrize("reads", ["outputs", "last", "state"])
@pytest.mark.parametrize(("kind", "layers", "both"), LAYERS)
def test_half_of_the_units_go_from_every_layer_and_direction(kind, layers, both, reads):
    model = Tagger(kind, reads, num_layers=layers, bidirectional=both).double().eval()
    examples = [torch.randn(batch, length, 5).double() for batch, length in [(2, 7), (3, 11)]]
    groups = step(pruner_of(model, examples[0]), *examples)

    assert groups == 2
    assert (model.enter.out_features, model.rnn.input_size, model.rnn.hidden_size) == (3, 3, 4)
    assert model.head.in_features == (8 if both else 4)
    again = kind(3, 4, num_layers=layers, bidirectional=both)
    assert {name: item.shape for name, item in model.rnn.named_parameters()} == {
        name: item.shape for name, item in again.named_parameters()
    }


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("reads", ["outputs", "state"])
def test_projected_outputs_go_and_hidden_units_stay(both, reads):
    model = Tagger(nn.LSTM, reads, proj_size=4, num_layers=2, bidirectional=both).double().eval()
    step(pruner_of(model, torch.randn(2, 7, 5).double()), torch.randn(2, 7, 5).double())
    assert (model.rnn.hidden_size, model.rnn.proj_size) == (8, 2)


class Packed(nn.Module):
    """A convolution, two LSTMs behind each other on packed sequences, with a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 10, 3, padding=1)
        self.first, self.second = nn.LSTM(10, 12), nn.LSTM(12, 12)
        self.head = nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        frames = torch.relu(self.conv(x)).permute(2, 0, 1)
        packed = pack_padded_sequence(frames, torch.tensor([7, 4]), enforce_sorted=True)
        first, _ = pad_packed_sequence(self.first(packed)[0])
        return self.head(first + self.second(first)[0])


def test_packed_sequences_and_residuals_are_followed():
    model = Packed().double().eval()
    x = torch.randn(2, 3, 7).double()
    step(pruner_of(model, x, ratio=0.25), x)
    assert (model.first.hidden_size, model.second.input_size, model.second.hidden_size) == (9, 9, 9)


class Loop(nn.Module):
    """A cell in a loop."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.cell, self.head = nn.Linear(3, 6), nn.GRUCell(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = x.new_zeros(x.size(0), self.cell.hidden_size)
        for index in range(x.size(1)):
            h = self.cell(self.enter(x[:, index]), h)
        return self.head(h)


def test_a_cell_in_a_loop_is_cut():
    model = Loop().double().eval()
    step(pruner_of(model, torch.randn(2, 4, 3).double()), torch.randn(2, 4, 3).double(), torch.randn(1, 9, 3).double())
    assert (model.cell.input_size, model.cell.hidden_size, model.head.in_features) == (3, 4, 4)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.norm, self.head = nn.GRU(5, 8, batch_first=True), nn.LayerNorm(8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.rnn(x)[0]))


def test_a_layer_norm_looks_at_the_kept_features_only():
    model = Normed().double().eval()
    step(pruner_of(model, torch.randn(2, 7, 5).double()), torch.randn(2, 7, 5).double())
    assert model.norm.normalized_shape == (4,)


class States(nn.Module):
    """All states side by side: Torch-Pruning takes the wrong columns of the head."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(5, 8, num_layers=2, batch_first=True), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[1].transpose(0, 1).reshape(x.size(0), -1))


def test_a_removal_that_is_wrong_is_refused_and_nothing_is_lost():
    model = States().double().eval()
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(2, 7, 5).double()
    expected = model(x)
    with pytest.raises(SurgeryError):
        step(pruner_of(model, x), x)
    assert {name: item.shape for name, item in model.state_dict().items()} == {
        name: item.shape for name, item in before.items()
    }
    assert torch.equal(model(x), expected)


def test_a_removal_is_compared_with_the_silenced_original(monkeypatch):
    def wrong(self: RecurrentPruner, layer: nn.Module, idxs: list[int]) -> nn.Module:
        return right(self, layer, [layer.input_size - 1 - index for index in idxs])

    right = RecurrentPruner.prune_in_channels
    monkeypatch.setattr(RecurrentPruner, "prune_in_channels", wrong)
    model = Tagger(nn.GRU, "outputs").double().eval()
    with torch.no_grad():
        model.enter.weight[:2] = 0.01  # these go, not their mirror images
    with pytest.raises(SurgeryError, match="differs"):
        step(pruner_of(model, torch.randn(2, 7, 5).double()), torch.randn(2, 7, 5).double())


def test_a_group_of_recurrent_layers_alone_is_not_passed_over():
    model = nn.ModuleDict({"head": nn.Linear(1, 1)})

    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.LSTM(5, 8, batch_first=True), nn.LSTM(8, 6, batch_first=True)
            self.head = model["head"]

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x)[0])[0]

    stack = Stack().double().eval()
    step(pruner_of(stack, torch.randn(2, 7, 5).double(), ignored_layers=[stack.second]), torch.randn(2, 7, 5).double())
    assert (stack.first.hidden_size, stack.second.input_size, stack.second.hidden_size) == (4, 4, 6)


def test_importance_is_the_sum_over_all_weights_of_a_unit():
    layer = nn.GRU(3, 4, num_layers=2, bidirectional=True).double()
    graph = torch_pruning.DependencyGraph()
    sequence = torch.randn(5, 2, 3).double()
    options = recurrent(layer)
    graph.build_dependency(layer, sequence, options["forward_fn"], customized_pruners=options["customized_pruners"])
    group = graph.get_pruning_group(layer, graph.get_pruner_of_module(layer).prune_out_channels, list(range(8)))
    worths = RecurrentMagnitudeImportance(normalizer=None)(group)

    unit, total = 2, 0.0
    for name, weight in layer.named_parameters():
        if weight.dim() < 2:
            continue
        total += float(weight[unit::4].pow(2).sum())
        if "hh" in name:
            total += float(weight[:, unit].pow(2).sum())
        elif "_l1" in name:
            total += float(weight[:, unit::4].pow(2).sum())
    assert worths[unit] == pytest.approx(total)
    assert worths[unit + 4] == pytest.approx(total)


def test_regularised_training_of_torch_pruning_runs_on_the_same_graph():
    model = Tagger(nn.LSTM, "last", num_layers=2)
    x = torch.randn(2, 7, 5)
    pruner = torch_pruning.pruner.GroupNormPruner(
        model,
        x,
        importance=RecurrentMagnitudeImportance(),
        reg=0.1,
        ignored_layers=[model.head],
        **FRESH,
        **recurrent(model),
    )
    model(x).sum().backward()
    before = model.enter.weight.grad.clone()
    pruner.regularize(model)
    assert not torch.equal(before, model.enter.weight.grad)


def test_unequal_directions_are_refused():
    with pytest.raises(SurgeryError, match="different units"):
        RecurrentPruner().prune_out_channels(nn.LSTM(3, 4, bidirectional=True), [1])


def test_a_model_without_recurrent_layers_is_refused():
    with pytest.raises(SurgeryError, match="no recurrent layer"):
        recurrent(nn.Linear(2, 3))


def test_a_step_that_cuts_nothing_is_an_error():
    model = Tagger(nn.GRU, "outputs").eval()
    x = torch.randn(2, 7, 5)
    with pytest.raises(SurgeryError, match="cut nothing"):
        step(pruner_of(model, x, ignored_layers=[model.head, model.rnn, model.enter]), x)


def test_a_step_without_examples_is_an_error():
    model = Tagger(nn.GRU, "outputs").eval()
    with pytest.raises(SurgeryError, match="no inputs"):
        step(pruner_of(model, torch.randn(2, 7, 5)))
