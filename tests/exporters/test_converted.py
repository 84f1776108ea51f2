"""Converted layers export as plain operators, whole or step by step, and agree with PyTorch at sizes never seen."""

from __future__ import annotations

from functools import partial

import onnx
import pytest
import torch
from torch import nn

from compressor.errors import ExportError
from compressor.formats import Job
from compressor.nn.converted.additive import AdditiveLayer
from compressor.nn.converted.fsmn import FsmnLayer
from compressor.nn.converted.lssl import LsslLayer
from compressor.nn.converted.m2rnn import M2rnnLayer
from compressor.nn.converted.para_rnn import ParaLayer
from compressor.nn.converted.plstm import PlstmLayer
from compressor.nn.converted.recurrent import TARGETS, ConvertedRecurrent
from compressor.nn.structure import replace_module
from compressor.onnx_graphs import targets
from compressor.onnx_graphs.partition import survey
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.steps import Steps
from compressor.testing import RandomTask, random_lengths
from exporters.onnx import Options, export
from tests.exporters.agreement import assert_agrees
from tests.surgery import topologies
from tests.surgery.topologies import CELLS, CLASSES, INPUT
from tests.tolerances import EXPORTED_FLOAT32

TIMED, LAST = {0: "batch", 1: "time"}, {0: "batch"}
LOOPS = {"Scan", "Loop", "If", "GRU", "RNN", "LSTM"}
SHAPES = ((1, 1), (3, 2), (7, 31), (2, 110))


def converted(name, **options):
    """A topology whose recurrent layers are FSMN layers of random weights."""
    torch.manual_seed(0)
    model = getattr(topologies, name)(CELLS["gru"]).eval()
    for path, old in [(path, part) for path, part in model.named_modules() if isinstance(part, nn.GRU)]:
        new, width, directions = [], old.input_size, 2 if old.bidirectional else 1
        for _ in range(old.num_layers):
            new.append(_layer(width, old.hidden_size * directions, **options))
            width = old.hidden_size * directions
        replace_module(
            model,
            path,
            ConvertedRecurrent(
                new, batch_first=old.batch_first, bidirectional=old.bidirectional, has_cell_state=False, dropout=0.0
            ),
        )
    return model.eval()


def _layer(inputs, outputs, **options):
    return FsmnLayer(inputs, outputs, **({"projection": 7, "hidden": 11, "order": 3, "dilations": (1, 2)} | options))


def task_of(model):
    def example(batch, length):
        lengths = random_lengths(batch, length)
        lengths[0] = length
        return torch.randn(batch, length, INPUT), lengths

    with torch.no_grad():
        timed = model(*example(2, 5)).dim() == 3
    return RandomTask({"features": TIMED, "lengths": LAST}, {"scores": TIMED if timed else LAST}, example, model)


@pytest.mark.parametrize(
    "name",
    ["EveryStep", "LastState", "Stacked", "SequenceFirst", "Packed", "PackedMean", "TwoModules", "UsedTwice",
     "IndexByLength", "ConvolutionInFront"],
)  # fmt: skip
def test_a_whole_file_agrees_at_sizes_never_seen_and_has_no_loop(tmp_path, name):
    model = converted(name)
    task, path = task_of(model), tmp_path / "model.onnx"
    artifact = export(Job(model, task, path, Options()))
    assert artifact.parity.passed
    assert not LOOPS & set(artifact.operators)
    for shape in SHAPES:
        assert_agrees(path, model, *task.example(*shape))


@pytest.mark.parametrize("name", ["Bidirectional", "BothLastStates", "Packed"])
def test_a_layer_that_looks_ahead_is_exported_whole_and_has_no_step(tmp_path, name):
    model = converted(name, lookahead=2)
    task, path = task_of(model), tmp_path / "model.onnx"
    assert export(Job(model, task, path, Options())).parity.passed
    for shape in SHAPES:
        assert_agrees(path, model, *task.example(*shape))
    with pytest.raises(ExportError, match="positions ahead") as caught:
        export(Job(model, task, tmp_path / "again.onnx", Options(stream=True)))
    assert "`lookahead: 0`" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "chunk"), [("EveryStep", 1), ("Stacked", 4), ("SequenceFirst", 1), ("Packed", 1), ("Packed", 4)]
)
def test_a_step_file_gives_what_the_whole_file_gives_at_ten_times_the_traced_length(tmp_path, name, chunk):
    model = converted(name)
    task = task_of(model)
    artifact = export(Job(model, task, tmp_path / "model.onnx", Options(stream={"chunk": chunk})))
    assert artifact.step.parity.passed
    whole, step = OnnxFile(tmp_path / "model.onnx"), Steps(tmp_path / "model.step.onnx")
    assert not LOOPS & set(artifact.step.operators)
    x = torch.randn(1, 120, INPUT)
    lengths = torch.tensor([120])
    with torch.no_grad():
        torch.testing.assert_close(step(x, lengths), whole(x, lengths), atol=1e-5, rtol=0)
        torch.testing.assert_close(step(x, lengths), model(x, lengths), **EXPORTED_FLOAT32)


class Two(nn.Module):
    """Two layers of a target, the second as wide as the first gives, and a head."""

    def __init__(self, kind, *sizes, width=7):
        super().__init__()
        first, second = sizes if len(sizes) > 1 else sizes * 2
        layers = [kind(INPUT, width, **first), kind(width, width, **second)]
        self.rnn = ConvertedRecurrent(layers, batch_first=True, bidirectional=False, has_cell_state=True, dropout=0.0)
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def frames(width=48):
    """FSMN layers."""
    sizes = {"projection": width, "hidden": 2 * width, "order": 9}
    return Two(FsmnLayer, {**sizes, "dilations": (1,)}, {**sizes, "dilations": (1, 2)}, width=width)


def diagonal(cell):
    """Units that see their own state only."""
    return Two(ParaLayer, {"hidden": 6, "cell": cell}, {"hidden": 5, "cell": cell})


def state_space(**state):
    """State-space layers."""
    return Two(LsslLayer, {"projection": 6, "hidden": 9, **state})


def averages(*, forget, **cache):
    """Additive recurrences."""
    return Two(AdditiveLayer, {"heads": 2, "keys": 3, "values": 4, "hidden": 9, "forget": forget, **cache})


def asking(build, **cache):
    """The same with a memory cache whose gates are random."""
    model = build(**cache)
    for name, weight in model.named_parameters():
        if ".cache.ask." in name:
            nn.init.normal_(weight)
    return model


def products(*, constant):
    """Source-transition-mark networks."""
    return Two(PlstmLayer, {"heads": 2, "keys": 3, "values": 4, "hidden": 9, "constant_gates": constant})


def matrices():
    """Matrix-to-matrix recurrences."""
    return Two(M2rnnLayer, {"heads": 2, "keys": 3, "values": 4, "hidden": 9})


CACHE = {"memory_cache": 2, "cache_segment": 3}
MODELS = {
    "fsmn": frames,
    "lssl": partial(state_space, oscillators=4),
    "lssl, dense": partial(state_space, state_size=5),
    "para_rnn, gru": partial(diagonal, "gru"),
    "para_rnn, lstm": partial(diagonal, "lstm"),
    "additive": partial(averages, forget=True),
    "additive, nothing forgotten": partial(averages, forget=False),
    "plstm": partial(products, constant=False),
    "plstm, constant gates": partial(products, constant=True),
    "m2rnn": matrices,
    "additive, memory cache": partial(asking, averages, forget=True, **CACHE),
    "lssl, memory cache": partial(asking, state_space, oscillators=4, **CACHE),
    "lssl, dense, memory cache": partial(asking, state_space, state_size=5, **CACHE),
}
MODELS |= {
    word: partial(Two, kind, {name: value for name, value in kind.usual(9).items() if not name.endswith("put_size")})
    for word, kind in TARGETS.items()
    if word not in {name.partition(",")[0] for name in MODELS}
}
"""Of every target. The C exporter's tests and `benchmarks/runtimes.py` have them too."""


def built(name):
    """A model of random weights and its task."""
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    task = RandomTask({"x": TIMED}, {"y": TIMED}, lambda batch, length: (torch.randn(batch, length, INPUT),), model)
    return model, task


@pytest.mark.parametrize("target", ["qnn", "nnapi", "coreml"])
def test_accelerators_take_every_node_of_the_float_file(tmp_path, target):
    model, task = built("fsmn")
    export(Job(model, task, tmp_path / "model.onnx", Options(shapes={"batch": 1, "time": 11})))
    assert left_out(tmp_path / "model.onnx", target) == []


@pytest.mark.parametrize("form", ["whole", "step"])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_calibrated_file_of_integers_is_taken_whole_and_nearly_a_quarter_of_the_size(tmp_path, form, per_channel):
    model, task = built("fsmn")
    sizes = {"stream": True} if form == "step" else {"shapes": {"batch": 1, "time": 11}}
    rounding = {"quantize_for": "npu", "calibration_samples": 12, "per_channel": per_channel}
    rounded, plain = tmp_path / "rounded.onnx", tmp_path / "plain.onnx"
    artifact = export(Job(model, task, rounded, Options(precision="int8", rounding=rounding, **sizes)))
    floats = export(Job(model, task, plain, Options(**sizes)))
    if form == "step":
        artifact, floats, rounded = artifact.step, floats.step, tmp_path / "rounded.step.onnx"
    assert {item.form for item in artifact.quantization.matrices} == {"static"}
    assert not {"Scan", "Loop"} & set(artifact.operators)
    # Nodes, and a scale for each column if `per_channel`, weigh in a file this small: 2.83 to 3.3.
    assert floats.bytes / artifact.bytes > 2.8
    for target in ("qnn", "nnapi"):
        assert left_out(rounded, target) == []


def agrees(tmp_path, name):
    """Export whole and as a step, and compare both at ten times the longest traced length: the artifact."""
    model, task = built(name)
    artifact = export(Job(model, task, tmp_path / "model.onnx", Options(stream=True)))
    x = torch.randn(1, 290, INPUT)
    with torch.no_grad():
        torch.testing.assert_close(OnnxFile(tmp_path / "model.onnx")(x), model(x), atol=1e-5, rtol=0)
        torch.testing.assert_close(Steps(tmp_path / "model.step.onnx")(x), model(x), atol=1e-5, rtol=0)
    return artifact


def left_out(path, target):
    """The reasons for which an accelerator leaves nodes of a file alone; more than one partition is a reason too."""
    nodes = survey(onnx.load(path), targets.get(target))
    return [*nodes.refusals, *(f"{nodes.partitions} partitions" for _ in range(nodes.partitions != 1))]


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_diagonal_layer_is_a_scan_and_its_step_is_plain_and_taken_by_accelerators(tmp_path, cell):
    artifact = agrees(tmp_path, f"para_rnn, {cell}")
    assert artifact.operators["Scan"] == 2
    assert not LOOPS & set(artifact.step.operators)
    for target in ("qnn", "nnapi"):
        assert left_out(tmp_path / "model.step.onnx", target) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith(("additive", "plstm"))])
def test_sums_are_taken_at_once_whole_and_as_a_recurrence_step_by_step(tmp_path, name):
    artifact = agrees(tmp_path, name)
    assert not LOOPS & {*artifact.operators, *artifact.step.operators}
    export(Job(*built(name), tmp_path / "fixed.onnx", Options(shapes={"batch": 1, "time": 11})))
    for file in ("fixed.onnx", "model.step.onnx"):
        assert left_out(tmp_path / file, "qnn") == []


@pytest.mark.slow
def test_a_matrix_recurrence_is_a_scan_and_its_step_is_plain_and_taken_by_accelerators(tmp_path):
    artifact = agrees(tmp_path, "m2rnn")
    assert artifact.operators["Scan"] == 2
    assert not LOOPS & set(artifact.step.operators)
    assert left_out(tmp_path / "model.step.onnx", "qnn") == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("lssl")])
def test_a_state_space_layer_is_a_convolution_whole_and_a_recurrence_step_by_step(tmp_path, name):
    artifact = agrees(tmp_path, name)
    assert not (LOOPS | {"DFT"}) & {*artifact.operators, *artifact.step.operators}
    export(Job(*built(name), tmp_path / "fixed.onnx", Options(shapes={"batch": 1, "time": 11})))
    assert left_out(tmp_path / "fixed.onnx", "qnn") == []
    assert left_out(tmp_path / "model.step.onnx", "qnn") == []
    assert bool(left_out(tmp_path / "fixed.onnx", "nnapi")) == ("cache" in name)
