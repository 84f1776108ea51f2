"""Recurrent matrices are cut if that was measured to be faster."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from torch import nn

from compressor.errors import MethodError
from compressor.surgery.low_rank.analysis import Cut
from compressor.surgery.low_rank.ranks import PAYS, PAYS_STEP, choose_ranks, fastest_rank, rank_limit


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


@pytest.mark.parametrize(("cell", "mode"), [("LSTM", "LSTM"), ("GRU", "GRU")])
def test_a_file_of_one_step_pays_from_fewer_units_on(cell, mode):
    least, _ = PAYS_STEP[cell]
    assert fastest_rank(mode, least, 1)[0] == least // 2
    assert fastest_rank(mode, least - 1, 1)[0] == 0
    assert fastest_rank(mode, least, 2)[0] == 0
    assert f"it pays from {least} units on" in fastest_rank(mode, least - 1, 1)[1]


def cut(name="a", *, kind="linear", shape=(12, 20), most=7, losses=(1.0, 0.5, 0.25, 0.1, 0.0), local="weight"):
    site = SimpleNamespace(name=name, kind=kind, shape=shape, module="rnn", local=local)
    rows, columns = shape
    return Cut(site, rows * columns, rows + columns, list(losses), most, spectrum=None)


def limited(most=7, **more):
    model = nn.ModuleDict({"rnn": nn.LSTM(8, 400)})
    return rank_limit(model, cut(most=most, **more), 5, only_faster=True)


def test_a_recurrent_matrix_is_limited_by_what_is_faster_if_that_is_asked_for():
    recurrent = {"kind": "recurrent", "local": "weight_hh_l0", "shape": (1600, 400)}
    assert limited(most=319, **recurrent) == fastest_rank("LSTM", 400, 5)
    assert limited(most=200, **recurrent)[0] == 200
    assert "up to rank 200 only (r < m n / (m + n))" in limited(most=200, **recurrent)[1]
    assert limited(most=319, **(recurrent | {"local": "weight_ih_l0"}))[0] == 319
    assert limited(most=319, kind="linear")[0] == 319
    model = nn.ModuleDict({"rnn": nn.LSTM(8, 400)})
    assert rank_limit(model, cut(most=319, **recurrent), 5, only_faster=False)[0] == 319


def test_the_limit_of_heads_is_their_features():
    assert limited(kind="query_key") == (7, "a head has 4 features")
    assert limited(shape=(12, 20))[1].startswith("two factors of a 12 x 20 matrix have fewer parameters than it up to")


CUTS = [cut("a"), cut("b", losses=(1.0, 0.9, 0.8, 0.7, 0.6, 0.0)), cut("c", most=0)]
LIMITS = {"a": (3, "a is small"), "b": (4, "b is small"), "c": (0, "c never pays")}


@pytest.mark.parametrize(
    ("wish", "ranks", "idle"),
    [
        ({"rank": 3}, {"a": 3, "b": 3}, {"c": "c never pays"}),
        ({"rank": 4}, {"b": 4}, {"a": "rank 4 is wanted, and a is small", "c": "c never pays"}),
        ({"rank": 1}, {"a": 1, "b": 1}, {"c": "c never pays"}),
        ({"energy": 0.9}, {"a": 3}, {"b": "rank 5 is wanted, and b is small", "c": "c never pays"}),
        ({"energy": 0.5}, {"a": 1}, {"b": "rank 5 is wanted, and b is small", "c": "c never pays"}),
        ({"energy": 0.4}, {"a": 1, "b": 4}, {"c": "c never pays"}),
    ],
)
def test_every_matrix_gets_the_rank_that_is_asked_for_or_the_reason_why_not(wish, ranks, idle):
    assert choose_ranks(CUTS, LIMITS, **wish) == (ranks, idle)


@pytest.mark.parametrize("parameters", [0.3, 0.5, 0.7, 0.9])
def test_a_budget_is_kept_by_all_matrices_together(parameters):
    ranks, idle = choose_ranks(CUTS, LIMITS, parameters=parameters)
    able = CUTS[:2]
    spent = sum(each.per_rank * ranks[each.site.name] if each.site.name in ranks else each.dense for each in able)
    assert spent <= parameters * sum(each.dense for each in able)
    assert set(ranks) | set(idle) == {"a", "b", "c"}
    assert all(1 <= rank <= LIMITS[name][0] for name, rank in ranks.items())
    stays = "the budget is better spent elsewhere: it stays as it is"
    assert all(reason == ("c never pays" if name == "c" else stays) for name, reason in idle.items())


def test_a_budget_below_rank_one_everywhere_is_refused():
    with pytest.raises(MethodError, match=r"`parameters: 0\.1`"):
        choose_ranks(CUTS, LIMITS, parameters=0.1)
