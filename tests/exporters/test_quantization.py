from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from compressor.errors import ExportError, ParityError
from compressor.files import sha256
from compressor.formats import Job
from compressor.measure import macs
from compressor.nn.integers import in_blocks, rows_to_nearest, to_8_bits
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.steps import Steps
from compressor.testing import RandomTask, random_lengths
from exporters.onnx import Options, export
from exporters.onnx_files.step import step_path
from exporters.quantization import matrices, quantize, trials
from exporters.quantization.matrices import SCAN_UNITS
from exporters.quantization.whole_file import NothingSaved
from exporters.stepping import chained
from tests.exporters.conftest import KINDS, features_task

INPUT, HIDDEN = 17, 23
"""Odd, so that a swapped axis or a missing padding shows, and large enough to be worth rounding."""


class Net(nn.Module):
    """Two bidirectional layers, then one backward-only half of a third by hand, with every output that they have."""

    def __init__(self, cls, extra, bidirectional, units=HIDDEN, layers=2):
        super().__init__()
        self.rnn = cls(INPUT, units, num_layers=layers, bidirectional=bidirectional, batch_first=True, **extra)
        self.head = nn.Linear(units * (1 + bidirectional), 31)

    def forward(self, features):
        output, last = self.rnn(features)
        last = torch.cat(last) if isinstance(last, tuple) else last
        return self.head(output), last.transpose(0, 1)


def wide_task(**attributes):
    outputs = {"scores": {0: "batch", 1: "time"}, "last": {0: "batch"}}
    task = RandomTask(
        {"features": {0: "batch", 1: "time"}},
        outputs,
        lambda batch, length: (torch.randn(batch, length, INPUT),),
        **attributes,
    )
    task.batches = lambda generator: [((torch.randn(8, 19, INPUT, generator=generator),), None)] * 2
    return task


@pytest.fixture(autouse=True)
def _any_size(monkeypatch):
    """Small layers become a Scan too: they show what is wrong with it as well."""
    monkeypatch.setattr(matrices, "SCAN_UNITS", {})


def quantized(tmp_path, model, task, *, precision="int8", stream=False, **rounding):
    path = tmp_path / "model.onnx"
    return export(Job(model, task, path, Options(precision=precision, stream=stream, rounding=rounding))), path


def forms(artifact):
    return {matrix.name: matrix.form for matrix in artifact.quantization.matrices}


ANYWHERE, INT4 = {"quantize_for": "anywhere"}, {"precision": "int4", "max_error": 0.4}


@pytest.mark.parametrize(
    ("kind", "bidirectional", "options"),
    [
        *((kind, True, {}) for kind in KINDS),
        ("GRU", False, {}),
        ("RNN relu", False, ANYWHERE),
        ("LSTM", True, ANYWHERE),
        ("GRU", False, INT4),
        ("LSTM", True, INT4),
        ("GRU", True, INT4 | ANYWHERE),
    ],
)
def test_a_rounded_recurrent_layer_computes_what_its_rounded_weights_say(tmp_path, kind, bidirectional, options):
    torch.manual_seed(0)
    model = Net(*KINDS[kind], bidirectional).eval()
    artifact, path = quantized(tmp_path, model, wide_task(), **options)
    assert artifact.quantization.structure.passed
    assert {point.length for point in artifact.quantization.structure.points} >= {1, 29}
    assert "float" not in forms(artifact).values()
    if not options:
        expected = {"DynamicQuantizeLSTM": 2} if kind == "LSTM" else {"Scan": 4 if bidirectional else 2}
        assert expected.items() <= artifact.operators.items()
    features = torch.randn(3, 13, INPUT)
    with torch.no_grad():
        for ours, theirs in zip(OnnxFile(path)(features), model(features), strict=True):
            assert (ours - theirs).norm() / theirs.norm() < options.get("max_error", 0.1)
    assert artifact.bytes == path.stat().st_size
    assert macs.count(path, (features,)) == 3 * 13 * products(model)


def products(model):
    """Multiplications of one step of one sequence."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_the_whole_file_and_the_step_file_are_one_model_at_one_sequence(tmp_path, kind):
    torch.manual_seed(0)
    model, task = Net(*KINDS[kind], bidirectional=False, layers=1).eval(), wide_task(max_length=17)
    loud = task.example
    task.example = lambda batch, length: (loud(batch, length)[0] * torch.logspace(-2, 1, length)[:, None],)
    task.batches = lambda generator: [(task.example(8, 13), None)]
    artifact, path = quantized(tmp_path, model, task, stream=True, max_error=0.9)
    assert set(forms(artifact).values()) == set(forms(artifact.step).values()) == {"integer"}
    alone = [point.error for point in artifact.step.quantization.beside_whole if point.batch == 1]
    assert len(alone) > 1
    assert max(alone) < 1e-5
    apart, whole = quantized(tmp_path / "apart", model, task, max_error=0.9)
    assert artifact.operators["MatMulInteger"] >= apart.operators.get("MatMulInteger", 0)
    x = task.example(1, 17)
    difference = trials.relative_error([OnnxFile(whole)(*x)], [Steps(step_path(path))(*x)])
    assert difference > 100 * max(alone)  # with one scale for the whole sequence


@pytest.mark.slow
def test_every_number_names_the_file_that_it_was_measured_on(tmp_path):
    torch.manual_seed(0)
    model, task = Net(nn.GRU, {}, bidirectional=False, layers=1).eval(), wide_task(max_length=9, length=5)
    as_float = export(Job(model, task, tmp_path / "float" / "model.onnx", Options(stream=True)))
    artifact, path = quantized(tmp_path, model, task, stream=True)
    for file, before in ((artifact, as_float), (artifact.step, as_float.step)):
        assert before.parity.sha256 == before.sha256 == sha256(tmp_path / "float" / before.path)
        assert file.sha256 == sha256(tmp_path / file.path) != before.sha256
        assert file.parity.sha256 == before.sha256  # what agrees to 1e-5 is the float file
    assert artifact.step.chained.sha256 == as_float.step.sha256
    rounded = artifact.step.quantization.beside_whole
    job = Job(model, task, path, Options(stream=True))
    assert chained.apart(path, step_path(path), job, 1.0) == tuple(
        point.model_copy(update={"within": True}) for point in rounded
    )
    step_path(path).write_bytes((tmp_path / "float" / as_float.step.path).read_bytes())
    assert chained.apart(path, step_path(path), job, 1.0) != rounded


class Repeating(nn.Module):
    """One layer used five times, and a table that is also the last layer."""

    def __init__(self):
        super().__init__()
        self.table, self.layer, self.out = nn.Embedding(211, 32), nn.Linear(32, 32), nn.Linear(32, 211, bias=False)
        self.out.weight = self.table.weight

    def forward(self, words):
        x = self.table(words)
        for _ in range(5):
            x = x + torch.tanh(self.layer(x))
        return self.out(x)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_matrix_that_is_used_several_times_is_stored_once(tmp_path, precision):
    torch.manual_seed(0)
    task = RandomTask(
        {"words": {0: "batch", 1: "time"}},
        {"scores": {0: "batch", 1: "time"}},
        lambda batch, length: (torch.randint(211, (batch, length)),),
    )
    task.batches = lambda generator: [((torch.randint(211, (8, 19), generator=generator),), None)] * 2
    artifact, path = quantized(tmp_path, Repeating(), task, precision=precision, max_error=0.9)
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    assert sum(array.size == 211 * 32 for array in weights) == 1
    assert sum(array.dtype.itemsize == 1 and array.size in (32 * 32, 32 * 16) for array in weights) == 1
    held = sum(matrix.bytes_after for matrix in artifact.quantization.matrices)
    assert held <= sum(array.nbytes for array in weights) < artifact.bytes < held + 6000


def test_4_bits_that_make_a_file_larger_than_8_bits_give_way_to_these_and_the_report_says_so(tmp_path):
    torch.manual_seed(0)
    model = Net(nn.LSTM, {}, bidirectional=True, units=9, layers=1)
    artifact, path = quantized(tmp_path, model, wide_task(), precision="int4", max_error=0.9)
    assert set(forms(artifact).values()) == {"integer"}
    assert "the file would have" in artifact.quantization.matrices[0].note
    as_8_bits, other = quantized(tmp_path / "other", model, wide_task(), max_error=0.9)
    assert artifact.bytes == path.stat().st_size == as_8_bits.bytes == other.stat().st_size


def test_a_file_that_no_rounding_makes_smaller_stays_float_and_says_so(tmp_path, monkeypatch):
    def refuse(*_):
        raise NothingSaved("rounded, the file would have 3 B")

    monkeypatch.setattr(quantize, "no_larger", refuse)
    task = wide_task()
    task.outputs = {"y": {0: "batch", 1: "time"}}
    artifact, path = quantized(tmp_path, nn.Linear(INPUT, HIDDEN), task)
    assert artifact.quantization is None
    assert artifact.sha256 == artifact.parity.sha256 == sha256(path)
    assert artifact.notes == ("`precision: int8` was left out: rounded, the file would have 3 B",)


def test_a_rounded_file_may_have_its_weights_beside_it(tmp_path):
    torch.manual_seed(0)
    options = Options(precision="int8", external_data=True, rounding=ANYWHERE)
    model = Net(*KINDS["GRU"], False).eval()
    artifact = export(Job(model, wide_task(), tmp_path / "model.onnx", options))
    assert artifact.quantization is not None
    assert [part.path for part in artifact.parts] == ["model.onnx.data"]
    assert artifact.bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    features = torch.randn(3, 13, INPUT)
    with torch.no_grad():
        for ours, theirs in zip(OnnxFile(tmp_path / "model.onnx")(features), model(features), strict=True):
            assert (ours - theirs).norm() / theirs.norm() < 0.1


def test_plain_onnx_anywhere(tmp_path):
    artifact, path = quantized(tmp_path, Net(nn.GRU, {}, True).eval(), wide_task(), quantize_for="anywhere")
    assert [entry.domain for entry in onnx.load(path).opset_import] == [""]
    assert artifact.operators["GRU"] == 2
    assert set(forms(artifact).values()) == {"weights"}


class WithLengths(nn.Module):
    """A packed layer with initial states of its own."""

    def __init__(self, cls):
        super().__init__()
        self.rnn = cls(INPUT, HIDDEN, bidirectional=True, batch_first=True)
        self.first = nn.Parameter(torch.randn(2, 1, HIDDEN))

    def forward(self, features, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(features, lengths, batch_first=True, enforce_sorted=False)
        first = self.first.expand(2, features.shape[0], HIDDEN)
        output, last = self.rnn(packed, (first, -first) if isinstance(self.rnn, nn.LSTM) else first)
        padded, _ = nn.utils.rnn.pad_packed_sequence(output, batch_first=True, total_length=features.shape[1])
        last = torch.cat(last) if isinstance(last, tuple) else last
        return padded, last.transpose(0, 1)


@pytest.mark.parametrize(
    ("cls", "precision"), [(nn.RNN, "int8"), (nn.GRU, "int8"), (nn.LSTM, "int8"), (nn.LSTM, "int4")]
)
def test_short_sequences_of_a_batch_end_where_they_end(tmp_path, cls, precision):
    torch.manual_seed(1)
    task = RandomTask(
        {"features": {0: "batch", 1: "time"}, "lengths": {0: "batch"}},
        {"output": {0: "batch", 1: "time"}, "last": {0: "batch"}},
        lambda batch, length: (torch.randn(batch, length, INPUT), random_lengths(batch, length)),
    )
    task.batches = lambda generator: [(task.example(8, 11), None)]
    artifact, path = quantized(tmp_path, WithLengths(cls).eval(), task, precision=precision, max_error=0.5)
    assert artifact.quantization.structure.passed
    output, _ = OnnxFile(path)(torch.randn(2, 9, INPUT), torch.tensor([4, 9]))
    assert not output[0, 4:].any()
    assert output[0, 3].any()


class Words(nn.Module):
    def __init__(self, tied=False):
        super().__init__()
        self.table = nn.Embedding(61, 32)
        self.mix = nn.MultiheadAttention(32, 4, batch_first=True)
        self.out = nn.Linear(32, 61, bias=False)
        if tied:
            self.out.weight = self.table.weight

    def forward(self, words):
        x = self.table(words)
        return self.out(self.mix(x, x, x)[0])


def words_task():
    task = RandomTask(
        {"words": {0: "batch", 1: "time"}},
        {"scores": {0: "batch", 1: "time"}},
        lambda batch, length: (torch.randint(0, 61, (batch, length)),),
    )
    task.batches = lambda generator: [(task.example(8, 11), None)]
    return task


@pytest.mark.parametrize(("tied", "precision"), [(False, "int8"), (True, "int8"), (True, "int4")])
def test_tables_are_looked_up_in_8_bits(tmp_path, tied, precision):
    torch.manual_seed(0)
    artifact, path = quantized(tmp_path, Words(tied).eval(), words_task(), precision=precision, max_error=0.5)
    stored = {tensor.name: tensor for tensor in onnx.load(path).graph.initializer}
    table = next(m for m in artifact.quantization.matrices if "Gather" in m.operators)
    assert table.form == "weights"
    assert not any(t.data_type == onnx.TensorProto.FLOAT and list(t.dims) == [61, 32] for t in stored.values())


class Convolution(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(INPUT, 19, 3, padding=1)

    def forward(self, features):
        return self.conv(features.transpose(1, 2)).transpose(1, 2)


def test_a_convolution_is_rounded_by_channel_and_runs_in_float(tmp_path):
    task = wide_task()
    task.outputs = {"scores": {0: "batch", 1: "time"}}
    artifact, _ = quantized(tmp_path, Convolution().eval(), task)
    assert list(forms(artifact).values()) == ["weights"]
    assert artifact.operators["Conv"] == 1


def test_nothing_to_round_is_an_error(tmp_path):
    with pytest.raises(ExportError, match="nothing to quantize"):
        quantized(tmp_path, nn.Sequential(nn.Linear(5, 2)).eval(), features_task({"scores": {0: "batch", 1: "time"}}))
    assert not (tmp_path / "model.onnx").exists()


def test_kept_matrices_are_named_and_an_unknown_name_is_refused(tmp_path):
    model = Net(nn.GRU, {}, False).eval()
    artifact, _ = quantized(tmp_path, model, wide_task(), keep_float=["rnn.weight_ih_l0"])
    kept = next(matrix for matrix in artifact.quantization.matrices if matrix.name == "rnn.weight_ih_l0")
    assert (kept.form, kept.note, kept.bytes_after) == ("float", "`keep_float: rnn.weight_ih_l0`", kept.bytes_before)
    with pytest.raises(ExportError, match="fits no matrix"):
        quantized(tmp_path, model, wide_task(), keep_float=["rnn.other_*"])


class Outlier(nn.Module):
    """The first layer's inputs span five orders of magnitude, which 8 bits of one scale cannot hold."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(INPUT, 37, 2, batch_first=True)
        with torch.no_grad():
            self.lstm.weight_ih_l0[:, 1:] *= 1000

    def forward(self, features):
        spread = torch.cat([features[..., :1] * 1000, features[..., 1:] * 1e-3], -1)
        return self.lstm(spread)[0]


@pytest.mark.parametrize(("units", "form"), [(SCAN_UNITS["GRU"] - 8, "weights"), (SCAN_UNITS["GRU"], "integer")])
def test_a_gru_too_small_for_a_scan_stays_native_with_8_bits_in_front(tmp_path, monkeypatch, units, form):
    monkeypatch.setattr(matrices, "SCAN_UNITS", SCAN_UNITS)
    artifact, _ = quantized(tmp_path, Net(nn.GRU, {}, False, units, layers=1).eval(), wide_task())
    gru = [matrix for matrix in artifact.quantization.matrices if "GRU" in matrix.operators]
    assert [matrix.form for matrix in gru] == [form] * 2
    assert all(("faster as it is" in matrix.note) == (form == "weights") for matrix in gru)
    assert artifact.operators["Scan" if form == "integer" else "GRU"] == 1


class Wide(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(INPUT, 64, batch_first=True)
        self.head = nn.Linear(64, 211)

    def forward(self, features):
        return self.head(self.lstm(features)[0])


def test_products_of_four_bits_need_a_newer_runtime_than_eight_and_four_bits_in_the_file_do_not(tmp_path):
    task = wide_task()
    task.outputs = {"scores": {0: "batch", 1: "time"}}
    files = [quantized(tmp_path, Wide().eval(), task, **options)[0] for options in ({}, INT4, INT4 | ANYWHERE)]
    assert [file.needs for file in files] == ["ONNX Runtime 1.14", "ONNX Runtime 1.17", "ONNX Runtime 1.14"]
    assert list(forms(files[1]).values()) == ["integer4", "integer4", "int4"]
    assert list(forms(files[2]).values()) == ["weights4"] * 3


@pytest.mark.parametrize("options", [INT4, INT4 | ANYWHERE, ANYWHERE, {}])
def test_fewer_bits_are_unpacked_once_when_onnx_runtime_loads_the_file(tmp_path, options):
    task = wide_task()
    task.outputs = {"scores": {0: "batch", 1: "time"}}
    _, path = quantized(tmp_path, Wide().eval(), task, **options)
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "loaded.onnx")
    settings.log_severity_level = 3
    onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
    left = {node.op_type for node in onnx.load(tmp_path / "loaded.onnx").graph.node}
    assert left.isdisjoint({"DequantizeLinear", "Floor", "Div", "Round"})
    assert "Cast" not in left or options == {}


def test_the_harmful_matrix_alone_leaves_integers(tmp_path):
    torch.manual_seed(0)
    task = wide_task()
    task.outputs = {"scores": {0: "batch", 1: "time"}}
    artifact, _ = quantized(tmp_path, Outlier().eval(), task, max_error=0.05)
    found = forms(artifact)
    assert found.pop("lstm.weight_ih_l0") in ("weights", "half", "float")
    assert set(found.values()) == {"integer"}
    named = next(matrix for matrix in artifact.quantization.matrices if matrix.name == "lstm.weight_ih_l0")
    assert named.errors["integer"] > 0.05
    assert "relative output error" in named.note


def test_the_metric_decides_where_it_is_limited(tmp_path):
    torch.manual_seed(0)
    task, model = wide_task(), Outlier().eval()
    task.outputs = {"scores": {0: "batch", 1: "time"}}
    features = torch.randn(8, 19, INPUT)
    wanted = model(features).detach()
    task.evaluate = lambda forward: 1 - float((forward(features) - wanted).norm() / wanted.norm())
    options = Options(precision="int8", rounding={"max_error": 1.0})
    artifact = export(Job(model, task, tmp_path / "model.onnx", options, metric_drop=0.03))
    quantization = artifact.quantization
    assert quantization.function == "evaluate"
    assert quantization.metric_drop <= quantization.metric_drop_allowed == 0.03
    named = next(matrix for matrix in quantization.matrices if matrix.name == "lstm.weight_ih_l0")
    assert named.form in ("weights", "half", "float")
    assert named.metric_drop > 0.03
    assert "left of the recipe's limit on it" in named.note


def test_a_file_that_is_too_far_away_does_not_leave(tmp_path):
    task = wide_task()
    task.batches = lambda generator: [((torch.zeros(2, 3, INPUT),), None)]
    with pytest.raises((ExportError, ParityError), match="max_error"):
        quantized(tmp_path, Net(nn.GRU, {}, False).eval(), task, max_error=1e-4, precision="int4")
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(("cls", "precision"), [(nn.GRU, "int8"), (nn.LSTM, "int4")])
def test_a_step_file_is_rounded_too(tmp_path, cls, precision):
    torch.manual_seed(0)
    task = wide_task(max_length=17, length=7)
    task.outputs = {"scores": {0: "batch", 1: "time"}}

    class Causal(Net):
        def forward(self, features):
            return super().forward(features)[0]

    model = Causal(cls, {}, False).eval()
    artifact, path = quantized(tmp_path, model, task, precision=precision, stream=True, max_error=0.5)
    assert artifact.step.quantization.structure.passed
    assert artifact.step.operators["MatMulInteger" if precision == "int8" else "MatMulNBits"] == 5
    features = torch.randn(1, 6, INPUT)
    with torch.no_grad():
        difference = Steps(step_path(path))(features) - model(features)
    assert difference.abs().max() < 0.2


def test_rounding_to_8_bits_is_off_by_half_a_step_at_most():
    weight = np.random.default_rng(0).normal(size=(3, 7, 5)).astype(np.float32)
    weight[1, 2] = 0
    low = to_8_bits(weight, (0, 1))
    assert low.scale.shape == (3, 7, 1)
    assert (np.abs(low.weight - weight) <= low.scale / 2 + 5e-4 * np.abs(weight)).all()
    assert np.abs(low.values).max() == 127
    again = to_8_bits(low.weight, (0, 1))
    assert (again.values == low.values).all()


@pytest.mark.parametrize("rows", [1, 31, 32, 33, 97])
def test_rounding_to_4_bits_in_blocks(rows):
    weight = np.random.default_rng(rows).normal(size=(rows, 3)).astype(np.float32)
    blocks = rows_to_nearest(weight.T, 4, 32)
    assert (np.abs(blocks.weight - weight.T) <= blocks.scale_of_each / 2 + 5e-4 * np.abs(weight.T)).all()
    assert in_blocks(blocks).shape == (3, -(-rows // 32), 16)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"rounding": {"keep_float": ["a"]}}, "needs integers to round to"),
        ({"precision": "int4", "stream": True, "rounding": {"quantize_for": "npu"}}, "have 8 bits"),
    ],
)
def test_options_that_do_not_go_together(given, text):
    with pytest.raises(ValueError, match=text):
        Options(**given)
