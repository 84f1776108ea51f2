"""Recurrent matrices are cut if that was measured to be faster."""

from __future__ import annotations

import pytest

from compressor.surgery.low_rank.ranks import PAYS, fastest_rank


@pytest.mark.parametrize(("cell", "mode"), [("LSTM", "LSTM"), ("GRU", "GRU"), ("RNN", "RNN_TANH")])
def test_from_which_size_and_up_to_which_rank_a_recurrent_matrix_pays(cell, mode):
    least, part = PAYS[cell]
    assert fastest_rank(mode, least - 1, 2)[0] == 0
    rank, reason = fastest_rank(mode, least + 1, 2)
    assert rank == int(part * (least + 1))
    assert f"up to rank {rank} only ({part:g} x hidden size" in reason


def test_an_rnn_in_a_file_of_one_step_never_pays():
    rank, reason = fastest_rank("RNN_TANH", 1024, 1)
    assert rank == 0
    assert "it pays never in a file of one step" in reason
