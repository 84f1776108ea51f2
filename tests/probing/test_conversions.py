"""What a step replaced is seen by comparing the models."""

import copy

import pytest
from torch import nn

from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.learned_query import LearnedQuery
from compressor.nn.attention.pooling import MeanPooling, PoolingReplacement
from compressor.nn.attention.pooling_call import PoolingCall
from compressor.nn.converted.fsmn import FsmnLayer
from compressor.nn.converted.recurrent import ConvertedRecurrent
from compressor.nn.graphs.random_graphs import barabasi_albert
from compressor.nn.memory_cache import fields
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.stack import RecurrentStack
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.nn.structure import LAYERS, replace_module
from compressor.probing.architecture import Encoder, GraphStack, Recurrent
from compressor.probing.conversions import RESIZED, between
from compressor.surgery.units.convert import convert

GRAPH = barabasi_albert(7, 2, 0)
WORDS = {"T": "attention", "A": "aaren"}


class Model(nn.Module):
    def __init__(self, layers=1):
        super().__init__()
        self.rnn = nn.LSTM(12, 40, num_layers=3)
        self.encoder = self.stack(layers)
        self.second = self.stack(2)

    @staticmethod
    def stack(layers):
        layer = nn.TransformerEncoderLayer(12, 3, 5, batch_first=True)
        return nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)


def with_aaren(model, names):
    changed = copy.deepcopy(model)
    for name in names:
        replace_module(changed, name, AarenAttention.from_attention(changed.get_submodule(name)))
    return changed


def letters(text):
    return tuple(WORDS[letter] for letter in text)


def test_a_model_that_is_the_same_has_no_conversions():
    model = Model()
    assert between(model, copy.deepcopy(model)) == ((), ())


def test_a_graph_in_the_place_of_a_recurrent_layer():
    model = Model()
    changed = copy.deepcopy(model)
    stack = GraphRecurrent("lstm", 12, GRAPH, 5, skips="layers")
    replace_module(changed, "rnn", RecurrentStack(stack, 40))
    ((found,), unprobed) = between(model, changed)
    assert unprobed == ()
    assert (found.modules, found.original) == (("rnn",), Recurrent("lstm", 2))
    assert found.converted == GraphStack("lstm", GRAPH, 5, width=40, skips="layers")
    assert found.scaled(32).converted.units_per_node == 4


def converted(bidirectional=False, **options):
    layers = [FsmnLayer(12, 40, projection=20, hidden=10, **({"order": 5, "dilations": (1, 3)} | options))] * 3
    return ConvertedRecurrent(layers, batch_first=False, bidirectional=bidirectional, has_cell_state=True, dropout=0.0)


def test_a_converted_layer_in_the_place_of_a_recurrent_one():
    model = Model()
    changed = copy.deepcopy(model)
    replace_module(changed, "rnn", converted())
    ((found,), unprobed) = between(model, changed)
    assert unprobed == ()
    assert (found.modules, found.original) == (("rnn",), Recurrent("lstm", 2))
    assert (found.converted.label, found.converted.size) == ("FSMN", "2 layers, order 5, dilations 1, 3")
    layer = found.scaled(8).converted.build(8).layer.layers[0]
    assert (layer.input_size, layer.output_size, layer.project.out_features, layer.readout.in_features) == (8, 8, 4, 2)


def test_a_converted_layer_that_looks_ahead_is_said_not_to_be_probed():
    model = Model()
    changed = copy.deepcopy(model)
    replace_module(changed, "rnn", converted(lookahead=2))
    found, (skip,) = between(model, changed)
    assert found == ()
    assert "later positions" in skip.reason


def test_other_sizes_are_no_conversion():
    model = Model()
    resized = convert(model, {}, ["rnn", "encoder.layers.0.self_attn", "encoder.layers.0.norm1"]).model
    assert between(model, resized) == ((), ())
    dense = copy.deepcopy(model)
    replace_module(dense, "rnn", RecurrentStack(UnevenRecurrent("LSTM", 12, [[11]]), 40))
    assert between(model, dense) == ((), ())


@pytest.mark.parametrize(
    ("layers", "converted", "before", "after"),
    [
        (1, [0], "T", "A"),
        (6, range(6), "TT", "AA"),
        (3, [1], "TTT", "TAT"),
        (6, [0, 1, 2, 5], "TTT", "ATA"),
    ],
)
def test_the_attention_of_a_stack_is_taken_layer_by_layer(layers, converted, before, after):
    model = Model(layers)
    names = tuple(f"encoder.layers.{index}.self_attn" for index in converted)
    ((found,), _) = between(model, with_aaren(model, names))
    assert (found.original, found.converted) == (Encoder(letters(before), 3), Encoder(letters(after), 3))
    assert found.modules == names


def test_every_stack_is_a_conversion_of_its_own_and_an_earlier_one_stays_converted():
    model = Model(2)
    first = with_aaren(model, ["encoder.layers.0.self_attn"])
    second = with_aaren(first, ["encoder.layers.1.self_attn", "second.layers.0.self_attn"])
    found, _ = between(first, second)
    assert [conversion.original for conversion in found] == [Encoder(letters("AT"), 3), Encoder(letters("TT"), 3)]
    assert [conversion.converted for conversion in found] == [Encoder(letters("AA"), 3), Encoder(letters("AT"), 3)]


def test_a_memory_cache_is_probed_with_the_aaren_that_has_it():
    model, cache = Model(2), {"memory_cache": 3, "cache_segment": 2}
    after = copy.deepcopy(model)
    old = after.get_submodule("encoder.layers.0.self_attn")
    replace_module(after, "encoder.layers.0.self_attn", AarenAttention.from_attention(old, **cache))
    ((found,), _) = between(model, after)
    assert (found.original, found.converted) == (Encoder(letters("TT"), 3), Encoder(letters("AT"), 3, **cache))
    assert found.converted.size == "2 layers, 3 heads, 3 slots of 2"
    built = found.converted.scaled(24).build(24)
    assert fields(built.blocks[0].self_attn.cache) == cache
    assert all(bool(weight.isfinite().all()) for weight in built.parameters())
    assert not built.blocks[0].self_attn.cache.ask.weight.any()


def test_attention_that_had_been_resized_counts_as_attention():
    model = Model(2)
    resized = convert(model, {}, ["encoder.layers.0.self_attn"]).model
    ((found,), _) = between(resized, with_aaren(resized, ["encoder.layers.0.self_attn"]))
    assert found.original == Encoder(letters("TT"), 3)


def test_a_pooling_is_said_not_to_be_probed():
    model = Model()
    changed = copy.deepcopy(model)
    pooling = PoolingReplacement(PoolingCall(("src",), "src"), MeanPooling(12), 12, "rows")
    replace_module(changed, "encoder", pooling)
    found, (skip,) = between(model, changed)
    assert found == ()
    assert skip.name == "encoder"
    assert "one vector for a sequence" in skip.reason


def test_every_layer_of_this_package_is_resized_or_probed_or_said_not_to_be():
    assert {cls for cls, _ in LAYERS.values()} == {
        *RESIZED,
        RecurrentStack,
        AarenAttention,
        LearnedQuery,
        PoolingReplacement,
        ConvertedRecurrent,
    }
