"""Records of replaced layers rebuild a model's structure, or say why they do not fit it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from compressor.errors import CheckpointError
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.lama import LamaAttention
from compressor.nn.attention.learned_query import LearnedQuery, LearnedQueryRecord
from compressor.nn.attention.pooling import PoolingReplacement
from compressor.nn.attention.pooling_call import PoolingCall
from compressor.nn.converted.fsmn import FsmnLayer
from compressor.nn.converted.recurrent import ConvertedRecurrent
from compressor.nn.factored_linear import LowRankLinear
from compressor.nn.graphs.random_graphs import watts_strogatz
from compressor.nn.group_norm import WideGroupNorm
from compressor.nn.norm import WideLayerNorm
from compressor.nn.own_norm import WideOwnNorm
from compressor.nn.recurrent.factored import LowRankRecurrent
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.stack import RecurrentStack
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.nn.rms_norm import WideRMSNorm
from compressor.nn.structure import LAYERS, apply_record, replace_module, replace_record
from tests.nn.test_own_norm import OutsideUnbiased

INPUT, WIDTH = 5, 8


class Largest(nn.Module):
    def forward(self, states):
        return states.amax(1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(INPUT, 4, bidirectional=True, batch_first=True)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.norm = nn.LayerNorm(WIDTH)
        self.last = nn.GRU(WIDTH, 3, batch_first=True)
        self.causal = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.asked = nn.Linear(3, 6)
        self.linear = nn.Linear(3, 11)
        self.channels, self.squares = nn.GroupNorm(1, 11), nn.RMSNorm(11)
        self.own = OutsideUnbiased()
        self.converted = nn.GRU(11, 11, batch_first=True)
        self.end = nn.GRU(11, 7, batch_first=True)
        self.pooling = Largest()

    def forward(self, x):
        y = self.rnn(x)[0]
        y = self.causal(y, y, y)[0]
        z = self.last(self.norm(self.attention(y, y, y)[0]))[0]
        z = self.linear(z) + self.asked(z).sum(-1, keepdim=True)
        z = self.squares(self.channels(z.transpose(1, 2)).transpose(1, 2))
        return self.pooling(self.end(self.converted(self.own(z))[0])[0])


def _compressed():
    """A model of 3 + 2 hidden units and 5 normalised features, and its records."""
    torch.manual_seed(0)
    model = Model().double().eval()
    attention = CompactMultiheadAttention(
        2, query_width=5, key_width=5, value_width=5, head_width=4, value_head_width=3, output_width=7, scale=0.5,
        batch_first=True, dtype=torch.float64,
    )  # fmt: skip
    layers = {
        "rnn": UnevenRecurrent("LSTM", INPUT, [[3, 2]], batch_first=True, dtype=torch.float64),
        "attention": attention,
        "norm": WideLayerNorm(7, WIDTH, dtype=torch.float64),
        "channels": WideGroupNorm(11, 1, 13, dtype=torch.float64),
        "squares": WideRMSNorm(11, 13, dtype=torch.float64),
        "own": WideOwnNorm.from_module(OutsideUnbiased()),
        "last": RecurrentStack(
            GraphRecurrent("gru", 7, watts_strogatz(11, 4, 1.0, 0), batch_first=True, dtype=torch.float64),
            3,
            dtype=torch.float64,
        ),
        "causal": AarenAttention(
            2,
            query_width=WIDTH,
            input_width=5,
            head_width=3,
            value_head_width=4,
            output_width=5,
            batch_first=True,
            dtype=torch.float64,
        ),
        "asked": LearnedQuery.from_layer(
            nn.Linear(3, 6, dtype=torch.float64),
            LearnedQueryRecord(
                num_heads=2,
                input_width=3,
                head_width=3,
                value_head_width=3,
                scale=0.5,
                bias=True,
                batch_first=True,
                key="linear",
                value="linear",
                output="linear",
            ),
        ),
        "pooling": PoolingReplacement(
            PoolingCall(("states",), "states"),
            LamaAttention(7, 2, dtype=torch.float64),
            7,
            "linear",
            dtype=torch.float64,
        ),
        "converted": ConvertedRecurrent(
            [FsmnLayer(11, 11, projection=4, hidden=6, order=3, dilations=[1, 2], dtype=torch.float64)],
            batch_first=True,
            bidirectional=False,
            has_cell_state=False,
            dropout=0.0,
        ),
        "linear": LowRankLinear(3, 11, 2, dtype=torch.float64),
        "end": LowRankRecurrent("GRU", 11, 7, [[(None, 3)]], batch_first=True, dtype=torch.float64),
    }
    for name, layer in layers.items():
        replace_module(model, name, layer)
    return model.eval(), [replace_record(name, layer) for name, layer in layers.items()]


def test_the_users_own_class_takes_on_the_recorded_structure_and_gives_the_same_bits():
    model, records = _compressed()
    rebuilt = Model().double().eval()
    for record in json.loads(json.dumps(records)):
        apply_record(rebuilt, record)
    rebuilt.load_state_dict(model.state_dict())
    x = torch.randn(3, 11, INPUT, dtype=torch.float64)
    assert torch.equal(rebuilt(x), model(x))
    assert not any(module.training for module in rebuilt.modules())


def test_applying_a_second_record_to_the_same_place_replaces_it_again():
    model, _ = _compressed()
    apply_record(model, replace_record("rnn", UnevenRecurrent("LSTM", INPUT, [[1, 2]])))
    assert model.rnn.hidden_size == (1, 2)
    assert model.rnn.layers[0].weight_ih_l0.dtype == torch.float64


def test_a_record_names_its_layer_by_a_word():
    _, records = _compressed()
    assert [record["with"] for record in records] == list(LAYERS)
    assert records[2] == {
        "kind": "replace", "module": "norm", "with": "wide_layer_norm",
        "record": {"features": 7, "width": 8, "eps": 1e-5, "elementwise_affine": True, "bias": True},
    }  # fmt: skip


def test_a_module_that_is_held_twice_is_replaced_in_both_places():
    model = nn.ModuleDict({"first": nn.LayerNorm(WIDTH)})
    model["second"] = model["first"]
    replace_module(model, "second", WideLayerNorm(5, WIDTH))
    assert model["first"] is model["second"]
    assert isinstance(model["first"], WideLayerNorm)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"module": "rnn2"}, "replaces `rnn2` by a `UnevenRecurrent`, and that is no module in this model"),
        ({"module": ""}, "replaces `` by a `UnevenRecurrent`, and that is no module"),
        ({"module": ["rnn"]}, "and that is no module"),
        ({"module": "norm"}, "replaces `norm` by a `UnevenRecurrent`, and that is a `LayerNorm` in this model"),
        ({"with": "os.system"}, "replaces a module by 'os.system', which this version does not know"),
        ({"with": ["uneven_recurrent"]}, "which this version does not know"),
        ({"record": None}, "the record of a layer is a NoneType"),
        ({"kind": "resize"}, "a record of a replaced layer has the keys"),
        ({"extra": 1}, "a record of a replaced layer has the keys ['extra', 'kind'"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(change, message):
    record = replace_record("rnn", UnevenRecurrent("LSTM", INPUT, [[3, 2]])) | change
    with pytest.raises(CheckpointError) as caught:
        apply_record(Model(), record)
    assert message in str(caught.value)


def test_the_model_itself_is_not_replaced():
    with pytest.raises(KeyError, match="cannot be replaced in place"):
        replace_module(Model(), "", nn.Identity())
