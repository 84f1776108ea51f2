from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.surgery.second_order.observe import Observed, Operand

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def second_moments(model, *batches):
    observed = Observed(model.eval())
    order = observed.order(batches[0])
    sums = observed.moments(batches, set(order))
    return {operand: sums[operand].second_moment(centred=False) for operand in order}


def moment(inputs):
    rows = inputs.reshape(-1, inputs.shape[-1]).double()
    return rows.T @ rows / len(rows)


class Own(nn.Module):
    """Products as people write them."""

    def __init__(self):
        super().__init__()
        self.right, self.left = nn.Parameter(torch.randn(6, 5)), nn.Parameter(torch.randn(4, 6))
        self.both = nn.Parameter(torch.randn(8, 6))

    def forward(self, x):
        upper, lower = self.both.chunk(2)
        return x @ self.right, torch.matmul(x, self.left.T), nn.functional.linear(2 * x, upper), 3 * x @ lower.t()


def test_products_in_the_models_own_code_are_found_with_the_rows_that_they_use():
    model, x = Own(), torch.randn(3, 7, 6)
    seen = second_moments(model, (x,))
    assert list(seen) == [
        Operand("right", 0, 5, columns=True),
        Operand("left", 0, 4),
        Operand("both", 0, 4),
        Operand("both", 4, 8),
    ]
    for operand, factor in zip(seen, (1, 1, 2, 3), strict=True):
        torch.testing.assert_close(seen[operand], moment(factor * x), **CLOSE)
    torch.testing.assert_close(Operand("right", 0, 5, columns=True).of(model.right), model.right.T)


def test_states_of_both_directions_are_what_the_recurrent_matrices_multiply():
    model, x = nn.LSTM(4, 5, bidirectional=True, batch_first=True), torch.randn(3, 6, 4)
    seen = second_moments(model, (x,))
    outputs = model(x)[0].detach()
    zero = torch.zeros(3, 1, 5)
    forward, backward = outputs[..., :5], outputs[..., 5:]
    torch.testing.assert_close(
        seen[Operand("weight_hh_l0", 0, 20)], moment(torch.cat([zero, forward[:, :-1]], 1)), **CLOSE
    )
    torch.testing.assert_close(
        seen[Operand("weight_hh_l0_reverse", 0, 20)], moment(torch.cat([backward[:, 1:], zero], 1)), **CLOSE
    )
    torch.testing.assert_close(seen[Operand("weight_ih_l0", 0, 20)], moment(x), **CLOSE)


def test_attention_and_convolutions_are_found_and_batches_add_up():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.conv = nn.MultiheadAttention(8, 2, batch_first=True), nn.Conv1d(8, 3, 3, padding=1)

        def forward(self, x):
            return self.conv(self.attention(x, x, x, need_weights=False)[0].transpose(1, 2))

    model, x, y = Net(), torch.randn(2, 5, 8), torch.randn(3, 4, 8)
    seen = second_moments(model, (x,), (y,))
    names = [operand.parameter for operand in seen]
    assert names == ["attention.in_proj_weight", "attention.out_proj.weight", "conv.weight"]
    torch.testing.assert_close(
        seen[Operand("attention.in_proj_weight", 0, 24)], moment(torch.cat([x.flatten(0, 1), y.flatten(0, 1)])), **CLOSE
    )
    assert seen[Operand("conv.weight", 0, 3)].shape == (24, 24)


@pytest.mark.parametrize("cell", [nn.GRUCell, nn.LSTMCell, nn.RNNCell])
def test_cells_in_a_loop_are_summed_over_their_steps(cell):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = cell(4, 5)

        def forward(self, x):
            state = None
            for step in x.unbind(1):
                state = self.cell(step, state)
            return state[0] if isinstance(state, tuple) else state

    x = torch.randn(3, 6, 4)
    rows = 5 * {nn.GRUCell: 3, nn.LSTMCell: 4, nn.RNNCell: 1}[cell]
    torch.testing.assert_close(second_moments(Loop(), (x,))[Operand("cell.weight_ih", 0, rows)], moment(x), **CLOSE)


def test_the_model_is_in_its_own_mode_again_and_calls_nothing_of_ours_later():
    model = nn.Sequential(nn.Linear(4, 4), nn.GRU(4, 4, batch_first=True)).train()
    Observed(model).order((torch.randn(2, 3, 4),))
    assert model.training
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_rows_of_a_parameter_that_is_a_part_of_a_larger_tensor_are_counted_from_its_own_beginning():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.part = nn.Parameter(torch.randn(9, 6)[4:])

        def forward(self, x):
            return x @ self.part.T, nn.functional.linear(x, self.part[2:4])

    assert list(second_moments(Net(), (torch.randn(3, 6),))) == [Operand("part", 0, 5), Operand("part", 2, 4)]
