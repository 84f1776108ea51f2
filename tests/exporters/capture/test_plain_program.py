from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.errors import ExportError
from compressor.streaming.step import StepModel
from compressor.streaming.survey import survey
from exporters.capture import plain_program


def targets(program):
    return {str(node.target).split(".")[1] for node in program.graph.nodes if node.op == "call_function"}


def captured(model, *inputs):
    program = plain_program.capture(model.eval(), inputs, {str(index): {} for index in range(len(inputs))}, {})
    with torch.no_grad():
        torch.testing.assert_close(program.module()(*inputs), model(*inputs), atol=1e-6, rtol=1e-5)
    return program


@pytest.fixture(params=["LSTM", "GRU", "RNN"])
def step(request):
    """A step of two layers, and its inputs."""
    model = nn.ModuleDict({"rnn": getattr(nn, request.param)(5, 6, 2, batch_first=True), "out": nn.Linear(6, 3)})
    model.forward = lambda x: model["out"](model["rnn"](x)[0])
    found = survey(model.eval(), lambda batch, length: (torch.randn(batch, length, 5),), (3, 4))
    made = StepModel(model, found)
    return made, (torch.randn(1, 1, 5), *(torch.randn_like(state) for state in made.initial_states(1)))


def test_a_step_of_cells_has_nothing_but_linear_slices_and_pointwise_operators(step):
    program = captured(step[0], *step[1])
    assert targets(program) <= {"linear", "slice", "sigmoid", "tanh", "mul", "add", "sub", "reshape"}


def test_a_saved_program_is_loaded_without_this_package(tmp_path):
    model, x = nn.Sequential(nn.Linear(5, 4), nn.Tanh()), torch.randn(2, 5)
    torch.export.save(captured(model, x), tmp_path / "program.pt2")
    torch.save({"given": (x,), "wanted": model(x)}, tmp_path / "values.pt")
    code = (
        "import sys, torch; values = torch.load('values.pt'); program = torch.export.load('program.pt2')\n"
        "torch.testing.assert_close(program.module()(*values['given']), values['wanted'])\n"
        "assert not {'compressor', 'exporters'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-I", "-W", "ignore", "-c", code], check=True, cwd=tmp_path)


class Products(nn.Module):
    """A weight in every way in which code transposes it, and biases on both sides."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 5)), nn.Parameter(torch.randn(4))
        self.other = nn.Parameter(torch.randn(4))

    def forward(self, x):
        w, b = self.weight, self.bias
        flat = x.flatten(0, 1)
        return (
            x @ w.t(),
            x @ w.T + b,
            b + x @ w.transpose(-1, -2),
            flat @ w.permute(1, 0),
            torch.addmm(b, flat, w.t()),
            x @ w.t() + (b + self.other),
        )


def test_every_product_with_a_transposed_weight_is_a_linear_with_its_bias():
    program = captured(Products(), torch.randn(2, 3, 5))
    kinds = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert kinds.count("aten.linear.default") == 6
    assert not {"matmul", "mm", "addmm", "add", "t"} & targets(program)


def test_a_product_with_what_is_no_transposed_weight_stays_and_is_right():
    class Other(nn.Module):
        def __init__(self):
            super().__init__()
            self.square = nn.Parameter(torch.randn(5, 5))

        def forward(self, x):
            wide = self.square + torch.zeros(1)  # added to: not a vector
            return x @ self.square, x @ x.transpose(1, 2), nn.functional.linear(x, self.square) + wide[:3]

    assert "matmul" in targets(captured(Other(), torch.randn(2, 3, 5)))


class Pieces(nn.Module):
    """Cuts of sizes that do not divide, axes counted from the end, pieces that nobody asks for."""

    def forward(self, x):
        first, _, last = x.chunk(3, -1)
        left, right = x.split([2, 5], dim=2)
        several = x.split(3, 1)
        rows = x.unbind(1)
        return first, last, left * 2, right, several[1], rows[-1], x.select(-1, -2), x[:, 0].unsqueeze(1).squeeze(-2)


def test_cuts_of_any_size_and_axis_become_slices():
    program = captured(Pieces(), torch.randn(2, 5, 7))
    assert not {"chunk", "split", "split_with_sizes", "unbind", "select"} & targets(program)


def test_what_depends_on_weights_only_is_computed_once_and_never_makes_the_file_larger():
    class Folded(nn.Module):
        def __init__(self):
            super().__init__()
            self.big, self.query = nn.Parameter(torch.randn(6, 40)), nn.Parameter(torch.randn(6))

        def forward(self, x):
            return x * (self.query @ self.big), self.big.t() + x[:, :1] * 0

    program = captured(Folded(), torch.randn(40, 40))
    kept = sum(value.numel() for value in (*program.state_dict.values(), *program.constants.values()))
    assert kept == 6 * 40 + 40  # the weight itself, and the folded product in the place of the query


def test_recurrent_layers_are_unrolled_and_counted():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(5, 4, 2, bidirectional=True, batch_first=True)
            self.cell = nn.LSTMCell(8, 3)

        def forward(self, x):
            state = None
            for position in self.gru(x)[0].unbind(1):
                state = self.cell(position, state)
            return state[0]

    x = torch.randn(1, 7, 5)
    assert "gru" not in targets(captured(Both(), x))
    assert plain_program.recurrent_cells(Both().eval(), (x,)) == 7 * 2 * 2 + 7


def test_packed_sequences_are_refused_with_the_forms_that_take_them():
    class Packs(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.GRU(5, 4, batch_first=True)

        def forward(self, x, lengths):
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return pad_packed_sequence(self.rnn(packed)[0], batch_first=True)[0]

    with pytest.raises(ExportError, match="packs") as error:
        plain_program.recurrent_cells(Packs(), (torch.randn(2, 3, 5), torch.tensor([3, 2])))
    assert "form: step" in error.value.hint


def test_an_open_axis_stays_open_within_its_bounds():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, x):
            return self.attention(x, x, x, need_weights=False)[0]

    model = Attends().eval()
    program = plain_program.capture(model, (torch.randn(1, 5, 6),), {"x": {1: "time"}}, {"time": (1, 9)})
    for length in (1, 2, 9):
        x = torch.randn(1, length, 6)
        torch.testing.assert_close(program.module()(x), model(x), atol=1e-6, rtol=1e-5)
