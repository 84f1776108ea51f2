"""Cells in a Python loop: the file takes any length, and holds native nodes where a step is a cell of PyTorch."""

from __future__ import annotations

import inspect
from collections import Counter
from itertools import pairwise

import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from compressor.errors import ExportError
from compressor.export import Job
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.testing import RandomTask, random_lengths
from exporters.loops import vectorized
from exporters.onnx import Options, export
from exporters.passes import fixed_shapes
from tests.tolerances import EXPORTED_FLOAT32

INPUT, HIDDEN, WORDS, CLASSES = 5, 7, 11, 3
TIMED = {0: "batch", 1: "time"}
SIZES = [(1, 1), (2, 2), (5, 3), (2, 7), (3, 31)]


class Parts(nn.Module):
    """What the loops below are made of."""

    def __init__(self, cell=nn.LSTMCell, hidden=HIDDEN):
        super().__init__()
        self.hidden = hidden
        self.cell, self.second = cell(INPUT, hidden), cell(hidden, hidden)
        self.pair = nn.GRUCell(2 * INPUT, hidden)
        self.head, self.start = nn.Linear(hidden, CLASSES), nn.Linear(INPUT, hidden)
        self.norm, self.dropout = nn.LayerNorm(hidden), nn.Dropout(0.5)
        self.words = nn.Embedding(WORDS, INPUT)

    def zeros(self, x):
        return torch.zeros(x.size(0), self.hidden)


class EveryStep(Parts):
    """An output at every step, from states that start as zeros."""

    def forward(self, x):
        h, c, outputs = self.zeros(x), self.zeros(x), []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            outputs.append(self.head(h))
        return torch.stack(outputs, 1), c


class Unbound(Parts):
    """No state is given to the first step."""

    def __init__(self):
        super().__init__(nn.GRUCell)

    def forward(self, x):
        h, outputs = None, []
        for step in x.unbind(1):
            h = self.cell(step, h)
            outputs.append(h.unsqueeze(1))
        return torch.cat(outputs, dim=1)


class Relu(Parts):
    """A transposed sequence, of which the last state is used."""

    def __init__(self):
        super().__init__(lambda *sizes: nn.RNNCell(*sizes, nonlinearity="relu"))

    def forward(self, x):
        h = x.new_zeros(x.size(0), HIDDEN)
        for step in x.transpose(0, 1):
            h = self.cell(step, h)
        return self.head(h)


class Stack(Parts):
    """Two cells, with an embedding, a norm, a dropout and a residual between and around them."""

    def forward(self, words):
        states, outputs = [(self.zeros(words),) * 2 for _ in range(2)], []
        for t in range(words.shape[1]):
            x = self.words(words[:, t])
            for layer, cell in enumerate((self.cell, self.second)):
                states[layer] = cell(x, states[layer])
                new = self.dropout(self.norm(states[layer][0]))
                x = new + x if layer else new
            outputs.append(x)
        return torch.stack(outputs, 1), states[0][1]


class Backward(Parts):
    """From the last step to the first, into a tensor that is there before."""

    def __init__(self):
        super().__init__(nn.GRUCell)

    def forward(self, x):
        h, outputs = self.zeros(x), x.new_zeros(*x.shape[:2], CLASSES)
        for t in reversed(range(x.shape[1])):
            h = self.cell(x[:, t], h)
            outputs[:, t] = self.head(h)
        return outputs


class BothWays(Parts):
    """Two loops in opposite directions, joined step by step."""

    def forward(self, x):
        ahead, back = [], []
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
            ahead.append(state[0])
        state = None
        for t in range(x.shape[1] - 1, -1, -1):
            state = self.cell(x[:, t], state)
            back.insert(0, state[0])
        return torch.stack([torch.cat(both, -1) for both in zip(ahead, back, strict=True)], 1)


class LayerAfterLayer(Parts):
    """Each layer runs over the list of the one below."""

    def __init__(self):
        super().__init__(nn.GRUCell)

    def forward(self, x):
        steps = [x[:, t] for t in range(x.shape[1])]
        for cell in (self.cell, self.second):
            h, outputs = None, []
            for step in steps:
                h = cell(step, h)
                outputs.append(h)
            steps = outputs
        return torch.stack(steps, 1), steps[-1], steps[0]


class Windows(Parts):
    """Steps that overlap."""

    def forward(self, x):
        x, h, outputs = nn.functional.pad(x, (0, 0, 1, 0)), self.zeros(x), []
        for t in range(x.shape[1] - 1):
            h = self.pair(x[:, t : t + 2].flatten(1), h)
            outputs.append(h)
        return torch.stack(outputs, 1)


class Neighbours(Parts):
    """Every step but the first, from a first one of its own: no iteration at length 1."""

    def forward(self, x):
        h = torch.tanh(self.start(x[:, 0]))
        outputs = [h]
        for t in range(x.shape[1] - 1):
            h = self.pair(torch.cat([x[:, t], x[:, t + 1]], -1), h)
            outputs.append(h)
        return torch.stack(outputs, 1), h


class FirstIsAnother(Parts):
    """`if t == 0`, and an LSTM whose last c is an output: no node gives it for no iteration."""

    def forward(self, x):
        for t in range(x.shape[1]):
            if t == 0:
                h = c = torch.tanh(self.start(x[:, t]))
            else:
                h, c = self.cell(x[:, t], (h, c))
        return h, c


class ByHand(Parts):
    """A state of plain arithmetic."""

    def forward(self, x):
        h, outputs = self.zeros(x), []
        for t in range(x.shape[1]):
            reset = torch.sigmoid(self.start(x[:, t]) + h @ self.second.weight_hh[: self.hidden].T)
            h = torch.tanh(self.start(x[:, t]) + reset * self.norm(h))
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


class Greedy(Parts):
    """The word of a step is the input of the next."""

    def forward(self, x):
        h, c, word, outputs = self.zeros(x), self.zeros(x), torch.zeros(x.size(0), dtype=torch.long), []
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t] + self.words(word), (h, c))
            word = self.head(h).argmax(-1)
            outputs.append(self.head(h))
        return torch.stack(outputs, 1)


class Attends(Parts):
    """A teacher-forced decoder that attends to what an encoder gave, and is fed what it attended to."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.GRU(INPUT, INPUT, batch_first=True)
        self.query, self.key, self.score = nn.Linear(HIDDEN, 4), nn.Linear(INPUT, 4), nn.Linear(4, 1, bias=False)

    def forward(self, x, words):
        memory, _ = self.encoder(x)
        h, c, context, outputs = self.zeros(x), self.zeros(x), x.new_zeros(x.size(0), INPUT), []
        for t in range(words.shape[1]):
            h, c = self.cell(self.words(words[:, t]) + context, (h, c))
            scores = self.score(torch.tanh(self.query(h)[:, None] + self.key(memory)))  # (B, T, 1)
            context = (scores.softmax(1) * memory).sum(1)
            outputs.append(torch.cat([self.head(h), context], -1))
        return torch.stack(outputs, 1)


class TwoBefore(Parts):
    """A step reads the last but one."""

    def __init__(self):
        super().__init__(nn.GRUCell)

    def forward(self, x):
        states = [self.zeros(x), torch.ones(x.size(0), HIDDEN)]
        for t in range(x.shape[1]):
            states.append(self.cell(x[:, t], states[-2]) + 0.5 * states[-1])
        return torch.stack(states[2:], 1)


class Masked(Parts):
    """Padding leaves the state as it is."""

    def __init__(self):
        super().__init__(nn.GRUCell)

    def forward(self, x, lengths):
        h, valid = self.zeros(x), torch.arange(x.shape[1]) < lengths[:, None]  # (B, T)
        for t in range(x.shape[1]):
            h = torch.where(valid[:, t, None], self.cell(x[:, t], h), h)
        return h


class Numbered(Parts):
    """The number of a step, a table of positions, and a mean by hand."""

    def forward(self, x):
        h, total = self.zeros(x), 0
        table = torch.linspace(0, 1, 64 * INPUT).reshape(64, INPUT)
        for t in range(x.shape[1]):
            h = torch.tanh(self.start(x[:, t] + table[t]) / (t + 1) + h)
            total = total + h * (t + 1)
        return total / x.shape[1]


class StepOfALayer(Parts):
    """A layer of PyTorch that is called with one step at a time."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(INPUT, HIDDEN, 2, batch_first=True)

    def forward(self, x):
        state, outputs = None, []
        for t in range(x.shape[1]):
            y, state = self.rnn(x[:, t : t + 1], state)
            outputs.append(self.head(y))
        return torch.cat(outputs, 1)


class FromTheSecond(Parts):
    """Time first, and outputs written from the second step on."""

    def forward(self, x):
        x, h, c = x.transpose(0, 1), self.zeros(x), self.zeros(x)
        outputs = torch.ones(x.size(0), x.size(1), CLASSES)
        for t in range(1, x.size(0)):
            h, c = self.cell(x[t - 1], (h, c))
            outputs[t] = self.head(h)
        return outputs.transpose(0, 1)


class Twice(Parts):
    """One loop over two sequences, the second the first one's results; states in a tensor that is written into."""

    def over(self, x, cell):
        h, c, outputs = torch.zeros(1, x.size(0), HIDDEN), torch.zeros(1, x.size(0), HIDDEN), []
        for t in range(x.size(1)):
            h[0], c[0] = cell(x[:, t], (h[0].clone(), c[0].clone()))
            outputs.append(h[0].clone())
        return torch.stack(outputs, 1)

    def forward(self, x):
        return self.over(self.over(self.over(x, self.cell), self.second), self.second)


class Positions(Parts):
    """The number of the step, made a tensor, chooses a row of a table."""

    def __init__(self):
        super().__init__(nn.GRUCell)
        self.table = nn.Embedding(64, INPUT)

    def forward(self, x):
        h, outputs = None, None
        for t in range(x.size(1)):
            place = torch.full((x.size(0),), t, dtype=torch.long)
            h = self.cell(x[:, t] + self.table(place) + self.table(torch.tensor(t)), h)
            outputs = torch.cat([x.new_zeros(x.size(0), 0, HIDDEN) if outputs is None else outputs, h[:, None]], 1)
        return outputs


class Frames(Parts):
    """A convolution within each step, which nothing feeds back."""

    def __init__(self):
        super().__init__(nn.GRUCell)
        self.convolution = nn.Conv1d(1, 1, 3, padding=1)

    def forward(self, x):
        h = None
        for step in x.unbind(1):
            h = self.cell(self.convolution(step[:, None]).relu().flatten(1), h)
        return h


FORMS = {
    EveryStep: {"LSTM": 1},
    Unbound: {"GRU": 1},
    Relu: {"RNN": 1},
    Stack: {"LSTM": 2},
    Backward: {"GRU": 1},
    BothWays: {"LSTM": 2},
    LayerAfterLayer: {"GRU": 2},
    Windows: {"GRU": 1},
    Neighbours: {"GRU": 1},
    FirstIsAnother: {"Scan": 1},
    ByHand: {"Scan": 1},
    Greedy: {"Scan": 1},
    Attends: {"GRU": 1, "Scan": 1},
    TwoBefore: {"Scan": 1},
    Masked: {"Scan": 1},
    Numbered: {"Scan": 2},
    StepOfALayer: {"GRU": 4, "Scan": 1},  # the first step, which is given no state, stands in front
    FromTheSecond: {"LSTM": 1},
    Frames: {"GRU": 1, "Conv": 1},
    Twice: {"LSTM": 3},
    Positions: {"GRU": 1},
}
LOOPS = ("LSTM", "GRU", "RNN", "Scan")
GROUPS = [
    (EveryStep, Positions),
    (Unbound, Relu, Backward),
    (BothWays, Windows, Frames),
    (LayerAfterLayer, Stack),
    (Neighbours, FirstIsAnother, FromTheSecond),
    (ByHand, TwoBefore, Masked),
    (Greedy, Numbered),
    (Attends, StepOfALayer),
    (Twice,),
]
"""Forms that are one model, as an export takes seconds."""


class Together(nn.Module):
    """Gives what all forms give on the same inputs."""

    def __init__(self, forms):
        super().__init__()
        self.forms = nn.ModuleList(form() for form in forms)

    def forward(self, x, words, lengths):
        given, outputs = {"x": x, "words": words, "lengths": lengths}, []
        for form in self.forms:
            found = form(*(given[name] for name in names_of(form)))
            outputs += found if isinstance(found, tuple) else (found,)
        return tuple(outputs) if len(outputs) > 1 else outputs[0]


def names_of(model):
    """Names of the parameters of `forward`."""
    return list(inspect.signature(model.forward).parameters)


def examples(batch, length):
    """What a form may take, by the names of `forward`'s parameters."""
    return {
        "x": torch.randn(batch, length, INPUT),
        "words": torch.randint(WORDS, (batch, length)),
        "lengths": random_lengths(batch, length),
    }


def task_for(model, **attributes):
    names = names_of(model)
    axes = {"x": TIMED, "words": TIMED, "lengths": {0: "batch"}}
    with torch.no_grad():
        outputs = model(*(examples(2, 4)[name] for name in names))
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return RandomTask(
        {name: axes[name] for name in names},
        {f"y{index}": TIMED if part.dim() == 3 else {0: "batch"} for index, part in enumerate(outputs)},
        lambda batch, length: tuple(examples(batch, length)[name] for name in names),
        **{"length": 4, "max_length": 13} | attributes,
    )


def agrees(model, task, path, sizes=SIZES):
    for batch, length in sizes:
        inputs = task.example(batch, length)
        with torch.no_grad():
            torch.testing.assert_close(OnnxFile(path)(*inputs), model(*inputs), **EXPORTED_FLOAT32)


@pytest.mark.parametrize("forms", GROUPS, ids=lambda forms: "-".join(form.__name__ for form in forms))
def test_loops_agree_at_lengths_that_were_never_traced(tmp_path, forms):
    torch.manual_seed(0)
    model = Together(forms).eval()
    task = task_for(model)
    artifact = export(Job(model, task, tmp_path / "model.onnx", Options()))
    agrees(model, task, tmp_path / "model.onnx")
    expected = sum((Counter(FORMS[form]) for form in forms), Counter())
    assert {kind: count for kind, count in artifact.operators.items() if kind in {*LOOPS, "Conv"}} == expected


@given(st.data())
@settings(max_examples=2, deadline=None)
def test_any_stack_of_cells_becomes_as_many_nodes(tmp_path_factory, data):
    kinds = data.draw(st.lists(st.sampled_from([nn.LSTMCell, nn.GRUCell, nn.RNNCell]), min_size=1, max_size=3))
    sizes = [INPUT, *data.draw(st.lists(st.integers(1, 9), min_size=len(kinds), max_size=len(kinds)))]
    backward = data.draw(st.booleans())

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.cells = nn.ModuleList(kind(*pair) for kind, pair in zip(kinds, pairwise(sizes), strict=True))

        def forward(self, x):
            states, outputs = [None] * len(self.cells), []
            for t in reversed(range(x.size(1))) if backward else range(x.size(1)):
                y = x[:, t]
                for layer, cell in enumerate(self.cells):
                    states[layer] = cell(y, states[layer])
                    y = states[layer][0] if isinstance(states[layer], tuple) else states[layer]
                outputs.append(y)
            return torch.stack(outputs, 1)

    model, path = Model().eval(), tmp_path_factory.mktemp("stack") / "model.onnx"
    artifact = export(Job(model, task_for(model), path, Options()))
    agrees(model, task_for(model), path, SIZES[-2:])
    assert sum(artifact.operators.get(kind, 0) for kind in LOOPS) == len(kinds)


@pytest.mark.parametrize(
    "options",
    [
        {"opset": 17, "precision": "float16"},
        {"opset": 23, "precision": "int8", "rounding": {"max_error": 0.5}},
    ],
    ids=str,
)
def test_a_scan_has_every_opset_and_precision(tmp_path, options):
    torch.manual_seed(0)
    model = ByHand(hidden=29).eval()
    task = task_for(model)
    task.batches = lambda generator: iter([(task.example(4, 9), None)] * 3)
    artifact = export(Job(model, task, tmp_path / "model.onnx", Options(**options)))
    assert artifact.operators["Scan"] == 1
    assert artifact.parity.passed


def test_a_loop_of_cells_stores_each_weight_once(tmp_path):
    model = BothWays().eval()  # one cell in two loops
    export(Job(model, task_for(model), tmp_path / "model.onnx", Options()))
    initializers = onnx.load(tmp_path / "model.onnx").graph.initializer
    stored = sum(torch.Size(item.dims).numel() for item in initializers if len(item.dims) > 1)
    assert stored == sum(parameter.numel() for parameter in model.cell.parameters())


def test_the_steps_of_a_loop_stream(tmp_path):
    model = EveryStep().eval()
    task = task_for(model)
    artifact = export(Job(model, task, tmp_path / "model.onnx", Options(stream=True)))
    assert artifact.operators["LSTM"] == 1
    assert [state.name for state in artifact.step.stream.states] == ["cell.h", "cell.c"]
    assert artifact.step.chained.passed


# --- refused ---


class Growing(Parts):
    def forward(self, x):
        h, outputs = None, []
        for t in range(x.shape[1]):
            h = self.pair(torch.cat([x[:, t], x[:, : t + 1].mean(1)], -1), h)
            outputs.append(h)
        return torch.stack(outputs, 1)


class OwnPast(Parts):
    def forward(self, x):
        outputs = [self.start(x[:, 0])]
        for t in range(1, x.shape[1]):
            outputs.append(self.norm(torch.stack(outputs, 1).mean(1) + self.start(x[:, t])))
        return outputs[-1]


class EverySecond(Parts):
    def forward(self, x):
        h = None
        for t in range(0, x.shape[1], 2):
            h = self.pair(torch.cat([x[:, t]] * 2, -1), h)
        return h


class Decides(Parts):
    def forward(self, x):
        h = None
        for t in range(x.shape[1]):
            h = self.pair(torch.cat([x[:, t]] * 2, -1), h)
            if h.sum() > 0:
                h = -h
        return h


class Decays(Parts):
    def forward(self, x):
        total = 0
        for t in range(x.shape[1]):
            total = total + x[:, t] * 0.5**t
        return total


class MiddleIsAnother(Parts):
    def forward(self, x):
        h, c = self.zeros(x), self.zeros(x)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
            if t == x.shape[1] // 2:
                h = self.norm(h)
        return h


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (Growing, "another size or another setting at every step"),
        (OwnPast, "no part of it repeats"),
        (EverySecond, "makes 3 equal steps at length 6 and 4 at length 8"),
        (Decides, "depends on the values of a tensor at `if h.sum() > 0:`"),
        (Decays, "no part of it repeats"),
        (MiddleIsAnother, "cannot be rolled up"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_loop_whose_steps_differ_is_refused_with_the_reason(tmp_path, form, reason):
    model = form().eval()
    with pytest.raises(ExportError) as caught:
        export(Job(model, task_for(model), tmp_path / "model.onnx", Options()))
    assert reason in caught.value.message
    assert caught.value.hint
    assert not list(tmp_path.iterdir())


# --- all steps at once ---

OPERATORS = {
    "linear": lambda x: nn.functional.linear(x, torch.linspace(-1, 1, 28).reshape(7, 4)),
    "layer_norm": lambda x: nn.functional.layer_norm(x, (4,)),
    "softmax": lambda x: x.softmax(1) + x.softmax(-2),
    "broadcast": lambda x: x * torch.arange(4.0) + torch.ones(2, 3, 1),
    "wider": lambda x: x.sum((0, 2)) + torch.ones(5, 1),
    "cat": lambda x: torch.cat([x, torch.ones(2, 3, 4), x.tanh()], 1),
    "stack": lambda x: torch.stack([x, -x], -1),
    "moved": lambda x: x.transpose(0, -1).permute(2, 0, 1).unsqueeze(0).squeeze(0).flip(0),
    "views": lambda x: x.reshape(6, 4).flatten().view(2, -1).expand(3, 2, 12),
    "chosen": lambda x: x.select(1, 2) + x[:, 1:2, :].squeeze(1) + x.argmax(0).sum(0),
    "several": lambda x: x.sum((0, 2)) + x.amax((0, 2)),
    "pieces": lambda x: x.chunk(2, -1)[1] * x.split(1, 0)[0][..., :2] * x.max(1).values[:, None, :2],
    "products": lambda x: x @ torch.ones(4, 2) + torch.bmm(x, x.transpose(1, 2)) @ torch.ones(2, 3, 2),
    "convolution": lambda x: nn.functional.conv1d(x, torch.linspace(-1, 1, 18).reshape(2, 3, 3), padding=1),
    "embedding": lambda x: nn.functional.embedding(x.argmax(-1), torch.linspace(0, 1, 20).reshape(4, 5)),
    "gates": lambda x: nn.functional.glu(x, -1) + x.cumsum(2)[..., :2] + x.flatten(1).mean(1)[:, None, None],
}


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=list(OPERATORS))
def test_an_operator_for_all_steps_gives_what_it_gives_for_each(operator):
    steps = torch.randn(5, 2, 3, 4)
    traced = torch.export.export(Applied(operator), (steps[0],), strict=False)
    known = {}
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            name = node.name
            constants = traced.graph_signature.inputs_to_lifted_tensor_constants
            known[node] = traced.constants[constants[name]] if name in constants else vectorized.Stacked(steps)
        elif node.op == "call_function":
            args, kwargs = torch.fx.node.map_arg((node.args, dict(node.kwargs)), known.get)
            known[node] = result(node, args, kwargs)
        else:
            found = known[node.args[0][0]].value
    torch.testing.assert_close(found, torch.stack([operator(step) for step in steps]))


class Applied(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def result(node, args, kwargs):
    flat = [leaf for leaf in torch.utils._pytree.tree_leaves((args, kwargs)) if isinstance(leaf, vectorized.Stacked)]
    if not flat:
        return node.target(*args, **kwargs)
    found = vectorized.apply(node.target, args, kwargs)
    assert found is not None, f"no rule for {node.target}"
    return vectorized.Stacked(tuple(found) if isinstance(found, (tuple, list)) else found)


# --- one length ---


def test_a_file_of_fixed_shapes_has_native_nodes_too(tmp_path):
    model = FromTheSecond().eval()
    artifact = export(Job(model, task_for(model), tmp_path / "model.onnx", Options(shapes={"batch": 1, "time": 6})))
    assert artifact.inputs[0].shape == (1, 6, INPUT)
    assert artifact.operators["LSTM"] == 1
    assert "Shape" not in artifact.operators


class ByHandBackward(Parts):
    def forward(self, x):
        h, outputs = self.zeros(x), []
        for t in reversed(range(x.shape[1])):
            h = torch.tanh(self.start(x[:, t]) + self.norm(h))
            outputs.append(h)
        return torch.stack(outputs, 1), h


def test_scans_are_written_out_at_one_length(tmp_path):
    torch.manual_seed(0)
    model = Together([ByHandBackward, TwoBefore]).eval()
    task = task_for(model)
    export(Job(model, task, tmp_path / "model.onnx", Options()))
    file = fixed_shapes.write(tmp_path / "model.onnx", tmp_path / "fixed.onnx", task, 6)
    assert "Scan" not in {node.op_type for node in onnx.load(file).graph.node}
    agrees(model, task, file, [(1, 6)])
