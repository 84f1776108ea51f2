"""Fewer, tied and looped layers are seen, built small and compared, or it is said why not."""

import copy

import pytest
import torch
from torch import nn

from compressor.methods.base import State
from compressor.methods.depth_search import DepthSearch
from compressor.methods.tie_layers import TieLayers
from compressor.nn.halting import HaltingLayer
from compressor.nn.structure import replace_module
from compressor.probing.architecture import Conversion, Encoder, Recurrent
from compressor.probing.comparison import compare
from compressor.probing.conversions import between
from compressor.probing.depth import Depth, pair
from compressor.probing.network import Network
from compressor.probing.plans import PLANS
from compressor.surgery.depth.chains import Site, arrange
from tests.methods.conftest import SignTask, make_context
from tests.methods.test_depth_search import Residual
from tests.methods.test_tie_layers import Encoding, Stacked

ONE = Encoder(("attention",), 4)


def _after(model, method):
    return method.apply(State(model), make_context(model, SignTask())).state.model


def _only(model, changed):
    [conversion], skips = between(model, changed)
    assert skips == ()
    return conversion


def test_a_shorter_stack_is_seen_in_lists_and_in_recurrent_modules():
    for model, name, one in (
        (Encoding(), "encoder.layers", ONE),
        (Stacked(nn.GRU), "rnn", Recurrent("gru")),
    ):
        changed = copy.deepcopy(model)
        arrange(changed, Site(name, 0, 4, pinned=name == "rnn"), (0, 1, 3))
        found = _only(model, changed)
        assert found.modules == (name,)
        assert (found.original, found.converted) == (Depth(one, (0, 1, 2, 3)), Depth(one, (0, 1, 2)))


def test_layers_that_share_are_seen_and_whether_vectors_are_their_own():
    torch.manual_seed(0)
    model = Encoding().eval()
    tied = _after(model, TieLayers(groups=2, start="mean"))
    assert _only(model, tied).converted == Depth(ONE, (0, 0, 1, 1), own_vectors=True)
    whole = _after(model, TieLayers(groups=2, start="mean", share="all"))
    assert _only(model, whole).converted == Depth(ONE, (0, 0, 1, 1))
    gru = Stacked(nn.GRU).eval()
    assert _only(gru, _after(gru, TieLayers(start="first"))).converted.places == (0, 1, 1, 1)


def test_loops_and_maps_behind_layers_are_seen():
    torch.manual_seed(0)
    model = Encoding().eval()
    looped = _after(model, TieLayers(groups=2, start="mean", share="all", exit="latent_diff", threshold=0.1))
    assert _only(model, looped).converted == Depth(ONE, (0, 0, 1, 1), threshold=0.1)
    assert _only(model, looped).converted.label == "looped causal attention"
    shorter = _after(model, DepthSearch(layers=2, trials=4, moves=("skip",), pooling="linear", pooling_batches=2))
    assert _only(model, shorter).converted == Depth(ONE, (0, 1))


def test_what_changes_no_place_is_no_change_of_depth():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 5))
    changed = copy.deepcopy(model)
    replace_module(changed, "1", nn.Sequential(nn.Linear(5, 2), nn.Linear(2, 5)))
    assert between(model, changed) == ((), ())


def test_layers_that_no_probe_knows_and_those_of_two_directions_are_told():
    model, changed = Residual(), Residual(layers=3)
    conversions, [skip] = between(model, changed)
    assert conversions == ()
    assert (skip.name, skip.reason[:42]) == ("blocks", "its layers hold neither attention that is ")
    both = Stacked(nn.GRU, bidirectional=True)
    fewer = Stacked(nn.GRU, layers=2, bidirectional=True)
    assert "two directions" in between(both, fewer)[1][0].reason


@pytest.mark.parametrize(
    ("before", "after", "small"),
    [
        (range(6), range(5), ((0, 1, 2, 3), (0, 1, 2))),
        (range(6), (0, 1), ((0, 1, 2, 3), (0,))),
        (range(12), range(11), ((0, 1, 2, 3), (0, 1, 2))),
        (range(6), (0, 0, 1, 1, 2, 2), ((0, 1, 2, 3), (0, 0, 1, 1))),
        (range(6), (0,) * 6, ((0, 1, 2, 3), (0, 0, 0, 0))),
        (range(12), (0, 0, *range(1, 11)), ((0, 1, 2, 3), (0, 0, 1, 2))),
        (range(2), (0,), ((0, 1), (0,))),
        (range(3), (0, 1, 1), ((0, 1, 2), (0, 1, 1))),
    ],
)
def test_deep_stacks_are_cut_down_in_proportion_and_stay_different(before, after, small):
    pairs = pair(ONE, tuple(before), after, own_vectors=False, threshold=None)
    assert tuple(side.places for side in pairs) == small


@pytest.mark.parametrize("one", [ONE, Recurrent("lstm")])
def test_places_of_one_number_share_their_weights(one):
    counts = {
        places: sum(parameter.numel() for parameter in Network(Depth(one, places).scaled(16), 16, 5, 5).parameters())
        for places in ((0,), (0, 0, 0), (0, 1), (0, 1, 1))
    }
    assert counts[0, 0, 0] == counts[(0,)] < counts[0, 1] == counts[0, 1, 1]
    own = Network(Depth(one, (0, 0), own_vectors=True).scaled(16), 16, 5, 5)
    assert counts[(0,)] < sum(parameter.numel() for parameter in own.parameters()) < counts[0, 1]


def test_a_loop_is_built_and_ends_where_it_settles():
    looped = Depth(ONE, (0, 0, 0, 1), threshold=1.0).scaled(16)
    torch.manual_seed(0)
    network = Network(looped, 16, 5, 5).eval()
    [loop] = [module for module in network.modules() if isinstance(module, HaltingLayer)]
    assert network(torch.zeros(2, 7, dtype=torch.int64)).shape == (2, 7, 5)
    assert loop.steps == 3
    assert sum(loop.taken.values()) == 2


def test_a_probe_of_them_gives_verdicts():
    pairs = pair(Recurrent("gru"), (0, 1), (0, 0), own_vectors=False, threshold=None)
    found = compare(Conversion(("rnn",), *pairs), PLANS["rehearsal"], cache=False)
    assert (found.original, found.converted) == ("2-layer GRU", "tied GRU")
    assert found.converted_size == "2 layers, 1 of them different"
    assert len(found.results) == 3
    assert found.results[0].parameters_converted < found.results[0].parameters_original


def test_attention_of_other_libraries_is_known_by_its_heads():
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=11, hidden_size=24, num_hidden_layers=4, num_attention_heads=3, intermediate_size=16)
    model = BertModel(config).eval()
    changed = copy.deepcopy(model)
    arrange(changed, Site("encoder.layer", 0, 4), (0, 2))
    one = Encoder(("attention",), 3)
    assert _only(model, changed) == Conversion(("encoder.layer",), Depth(one, (0, 1, 2, 3)), Depth(one, (0, 1)))
