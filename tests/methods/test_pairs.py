"""Every method after every other, on three tiny models: right, or refused with the order that works."""

from functools import cache

import pytest
import torch
from torch import nn

from compressor.errors import CompressorError
from compressor.formats import Job
from compressor.methods import METHODS
from compressor.methods.base import State
from compressor.methods.order import order_hint, refuse_order
from compressor.nn.converted.target import WORDS
from compressor.testing import RandomTask, check_file, normal
from exporters.onnx import Options, export
from tests.methods.conftest import CHANNELS, SignTask, make_context
from tests.surgery.rebuilding import rebuilt_from

WIDTH = 16


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(CHANNELS, WIDTH, num_layers=2, batch_first=True)
        self.mid, self.head = nn.Linear(WIDTH, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(torch.relu(self.mid(self.rnn(x)[0][:, -1])))


class Attending(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 24, 0.0, batch_first=True)
        self.enter, self.encoder, self.head = (
            nn.Linear(CHANNELS, WIDTH),
            nn.TransformerEncoder(layer, 2),
            nn.Linear(16, 2),
        )

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1), device=x.device)
        return self.head(self.encoder(self.enter(x), mask=mask)[:, -1])


class Pooling(nn.Module):
    def __init__(self):
        super().__init__()
        self.hidden, self.score = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1, bias=False)

    def forward(self, states):
        return (torch.softmax(self.score(torch.tanh(self.hidden(states))), 1) * states).sum(1)


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn, self.pool = nn.LSTM(CHANNELS, WIDTH, batch_first=True), Pooling()
        self.attention = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, x):
        y = self.rnn(x)[0]
        return self.head(self.pool(y + self.attention(y, y, y, need_weights=False)[0]))


MODELS = {"recurrent": Recurrent, "attending": Attending, "mixed": Mixed}
STEPS = {
    "units": METHODS["magnitude"](prune="units", ratio=0.5),
    "all units": METHODS["magnitude"](prune="units", ratio=0.5, targets=("*",)),
    "sparsify": METHODS["sparsify"](ratio=0.5, retrain={"method": "retrain", "epochs": 1}),
    "weights": METHODS["magnitude"](prune="weights", sparsity=0.5, targets=("*",)),
    "heads": METHODS["heads"](ratio=0.5),
    "low rank": METHODS["low_rank_attention"](rank=2),
    "all low rank": METHODS["low_rank_attention"](rank=2, targets=("*",), recurrent="smaller"),
    "lama": METHODS["lama"](target="pool", heads=2),
    "aaren": METHODS["aaren"](),
    **{word: METHODS["convert"](to=word) for word in WORDS},
    "fsmn": METHODS["convert"](to="fsmn", order=3),
    "lattice": METHODS["lattice"](prune="units", ratio=0.25),
    "lattice weights": METHODS["lattice"](prune="weights", sparsity=0.3),
    "depth": METHODS["depth_search"](layers=1),
    "tie": METHODS["tie_layers"](share="all"),
    "random graph": METHODS["random_graph"](graph="watts_strogatz", nodes=6, neighbours=2, units_per_node=3),
    "retrain": METHODS["retrain"](epochs=1),
    "rounding": METHODS["retrain"](epochs=1, quantize="int8"),
}
ALONE = {METHODS["automaton"]}
"""What reads symbols, and leaves nothing for other steps."""
STEPS |= {
    word: method()
    for word, method in METHODS.items()
    if method not in {*ALONE, *map(type, STEPS.values())}
    and not any(field.is_required() for field in method.model_fields.values())
}
"""Of every method; one with required options needs its own entry above."""
IDLE = ("change nothing", "nothing is cut", "keeps every connection", "one is replaced", "are left to", "no stack")
"""Refusals of a step that has nothing left to do, whatever came before."""
ON_FILE = {"all units", "heads", "low rank"}
QUICK = [("attending", "aaren", "heads"), ("attending", "heads", "aaren"), ("recurrent", "random graph", "units"),
         ("recurrent", "fsmn", "units"), ("recurrent", "units", "fsmn"), ("mixed", "lama", "units"),
         ("mixed", "units", "lama")]  # fmt: skip
"""Pairs that are tried in every run."""


class Task(SignTask):
    def example(self, batch, length):
        return (torch.randn(batch, length, CHANNELS),)


def fresh(model):
    torch.manual_seed(0)
    return MODELS[model]().eval()


@cache
def after(model, first):
    """The state after one step, or None if the model has nothing for it."""
    task, start = Task(), fresh(model)
    try:
        STEPS[first].check_task(start, task)
        return STEPS[first].apply(State(start), make_context(start, task, quick=True)).state
    except CompressorError:
        return None


def refused_before(first, second, model):
    """What changes layers one by one does not come after layers that share weights."""
    if not (first.startswith("tie") and STEPS[second].restructures):
        return False
    with pytest.raises(CompressorError, match="lets layers share weights before it") as error:
        refuse_order([STEPS[first], STEPS[second]], fresh(model), Task())
    assert error.value.hint == f"put `{STEPS[second].method}` in front of `tie_layers`"
    return True


def check_pair(model, first, second, tmp_path):
    """Carry both steps out; what is refused has to be refused for a reason that the user can act on."""
    state, step = after(model, first), STEPS[second]
    if state is None or refused_before(first, second, model):
        return
    try:
        step.check_task(state.model, Task())
        done = step.apply(state, make_context(fresh(model), Task(), quick=True)).state
    except CompressorError as error:
        refusal = error.message
    else:
        check_result(model, second, done, tmp_path)
        return
    if after(model, second) is not None and not any(words in refusal for words in IDLE):
        hint = order_hint(state.model, step.method)
        assert hint is not None, refusal
        assert f"`{STEPS[first].method}`" in hint, refusal


def check_result(model, second, done, tmp_path):
    """The structure is rebuilt to the same bits, masks hold, and the file of some pairs is right."""
    again = rebuilt_from(done, fresh(model))
    x = torch.randn(3, 5, CHANNELS)
    torch.testing.assert_close(again.eval()(x), done.model.eval()(x))
    for name, mask in done.masks.items():
        assert not done.model.get_parameter(name).detach()[~mask].any(), name
    if second in ON_FILE:
        task = RandomTask({"x": {0: "batch", 1: "time"}}, {"y": {0: "batch"}}, normal(CHANNELS), done.model)
        export(Job(done.model, task, tmp_path / "model.onnx", Options(format="onnx")))
        check_file(tmp_path / "model.onnx", done.model, task)


@pytest.mark.parametrize(("model", "first", "second"), QUICK)
def test_a_pair(model, first, second, tmp_path):
    check_pair(model, first, second, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("first", STEPS)
@pytest.mark.parametrize("model", MODELS)
def test_every_second_step(model, first, tmp_path):
    for second in STEPS:
        check_pair(model, first, second, tmp_path)


@pytest.mark.parametrize(
    ("model", "first", "second"),
    [
        ("attending", "aaren", "heads"),
        ("recurrent", "all low rank", "units"),
        ("recurrent", "all low rank", "lattice weights"),
        ("mixed", "all low rank", "random graph"),
    ],
)
def test_an_order_that_cannot_work_is_refused_before_work_begins(model, first, second):
    earlier, later, start, task = STEPS[first], STEPS[second], fresh(model), Task()
    layers = dict(start.named_modules())
    with pytest.raises(CompressorError) as error:
        refuse_order([earlier, later], start, task)
    said = f"`steps.1` ({later.method}): `steps.0` ({earlier.method}) replaces"
    assert error.value.message.startswith(said)
    assert error.value.hint == f"put `{later.method}` in front of `{earlier.method}`"
    assert dict(start.named_modules()) == layers
    refuse_order([later, earlier], start, task)


@pytest.mark.parametrize("later", [*STEPS.values(), METHODS["automaton"]()], ids=lambda step: step.method)
def test_nothing_comes_behind_an_automaton(later):
    automaton = METHODS["automaton"]()
    with pytest.raises(CompressorError, match=r"`steps.1` .* replaces the whole model before it") as error:
        refuse_order([automaton, later], fresh("recurrent"), Task())
    other = later.method != "automaton"
    expected = f"put `{later.method}` in front of `automaton`" if other else "take one of the two steps out"
    assert error.value.hint == expected


@pytest.mark.parametrize("first", ["aaren", "random graph"])
def test_replacing_a_layer_twice_is_refused_before_work_begins(first):
    model = "attending" if first == "aaren" else "recurrent"
    with pytest.raises(CompressorError) as error:
        refuse_order([STEPS[first], STEPS["retrain"], STEPS[first]], fresh(model), Task())
    assert error.value.hint == "take one of the two steps out"


@pytest.mark.parametrize(
    ("model", "steps"),
    [
        ("recurrent", ["random graph", "all units", "units", "lattice"]),
        ("attending", ["heads", "aaren", "all units", "weights"]),
        ("recurrent", ["all low rank", "all units", "weights"]),
    ],
)
def test_orders_that_work_are_not_refused(model, steps):
    chosen, start, task = [STEPS[step] for step in steps], fresh(model), Task()
    before = dict(start.named_modules())
    refuse_order(chosen, start, task)
    assert dict(start.named_modules()) == before
    assert any(step.replaces(start, task) for step in chosen)  # or there would be nothing to refuse


def test_the_order_that_works_is_named():
    state = after("attending", "aaren")
    assert order_hint(state.model, "heads") == (
        "`aaren` replaced `encoder.layers.0.self_attn`, `encoder.layers.1.self_attn` before this step: "
        "put `heads` in front of `aaren`"
    )
    assert order_hint(state.model, "aaren").startswith("an earlier `aaren` replaced `encoder.layers.0.self_attn`")
    assert order_hint(fresh("attending"), "heads") is None
