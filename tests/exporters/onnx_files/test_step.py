"""Step files: chained over a sequence they give what the whole-sequence file gives, and say how they are run."""

from __future__ import annotations

import json

import onnx
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from compressor.errors import ExportError, ParityError, UsageError
from compressor.formats import Job
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.recurrent.uneven import UnevenRecurrent
from compressor.render.programs import File, programs
from compressor.runtimes.onnx_runtime import OnnxFile
from compressor.runtimes.steps import METADATA_KEY, Steps
from compressor.testing import RandomTask, random_lengths
from exporters.onnx import Options, export
from tests.cli.conftest import call
from tests.exporters.conftest import features_task
from tests.nets import First
from tests.tolerances import EXPORTED_FLOAT32

TIMED, LAST = {0: "batch", 1: "time"}, {0: "batch"}
INPUT, WIDTH, WORDS = 5, 8, 11


class Tagger(nn.Module):
    """Words, a vector for the speaker and lengths; packs, and gives a tag at each position and a verdict at the end."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, INPUT)
        self.lstm = nn.LSTM(INPUT + 2, 7, 2, batch_first=True)
        self.uneven = UnevenRecurrent("GRU", 7, [[6], [4]], batch_first=True)
        self.tag, self.verdict = nn.Linear(4, 3), nn.Linear(4, 2)

    def forward(self, words, speaker, lengths):
        x = self.embedding(words)
        x = torch.cat([x, speaker[:, None].expand(-1, x.size(1), -1)], -1)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        x = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=words.size(1))[0]
        x = self.uneven(x)[0]
        return self.tag(x), self.verdict(x[torch.arange(x.size(0)), lengths - 1])


TAGGER = RandomTask(
    {"words": TIMED, "speaker": LAST, "lengths": LAST},
    {"tags": TIMED, "verdict": LAST},
    lambda batch, length: (
        torch.randint(WORDS, (batch, length)), torch.randn(batch, 2), random_lengths(batch, length),
    ),
)  # fmt: skip


class Decoder(nn.Module):
    """A causal encoder whose first layer is an Aaren and whose second keeps its keys and values."""

    def __init__(self, positions=None, **options):
        super().__init__()
        self.given, self.positions = nn.Linear(INPUT, WIDTH), positions
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 9, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.encoder.layers[0].self_attn = AarenAttention.from_attention(self.encoder.layers[0].self_attn)
        nn.init.normal_(self.encoder.layers[0].self_attn.query, std=20.0)
        self.table = nn.Embedding(400, WIDTH)

    def forward(self, features, *positions):
        x = self.given(features)
        if self.positions == "counted":
            x = x + self.table(torch.arange(x.size(1)))
        if self.positions == "given":
            x = x + self.table(positions[0])
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        return self.encoder(x, mask=mask, is_causal=True)


def _export(model, task, path, **stream):
    torch.manual_seed(0)
    model = model() if isinstance(model, type) else model
    return model.eval(), path, export(Job(model, task, path, Options(stream=stream or True)))


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return _export(Tagger, TAGGER, tmp_path_factory.mktemp("tagger") / "model.onnx")


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    task = features_task({"states": TIMED}, max_length=400)
    return _export(Decoder, task, tmp_path_factory.mktemp("decoder") / "model.onnx", batch="dynamic")


def _stream(path, artifact):
    """The Python program of a step file, loaded, in which torch is not imported."""
    file = File(artifact.step.path, artifact.step.inputs, artifact.step.outputs, artifact.step.stream)
    text = programs(file)["model.step.py"]
    assert "torch" not in text
    space = {"__name__": "program", "__file__": str(path.parent / "use" / "model.step.py")}
    exec(compile(text, "model.step.py", "exec"), space)
    return space["Stream"]()


def test_every_layers_state_is_an_input_and_an_output_and_no_shape_is_open(tagger):
    *_, artifact = tagger
    names = ["lstm.h.0", "lstm.c.0", "lstm.h.1", "lstm.c.1", "uneven.layers.0.h", "uneven.layers.1.h"]
    shapes = [(1, 7)] * 4 + [(1, 6), (1, 4)]
    assert [(item.name, item.shape) for item in artifact.step.inputs] == [
        ("words", (1, 1)), ("speaker", (1, 2)), *zip(names, shapes, strict=True),
    ]  # fmt: skip
    assert [(item.name, item.shape) for item in artifact.step.outputs] == [
        ("tags", (1, 1, 3)), ("verdict", (1, 2)), *((f"{n}.next", s) for n, s in zip(names, shapes, strict=True)),
    ]  # fmt: skip
    assert artifact.step.stream.state_bytes(0) == artifact.step.stream.state_bytes(99) == 4 * (4 * 7 + 6 + 4)


def test_one_position_is_plain_operations_without_a_question_about_shapes(tagger):
    *_, artifact = tagger
    assert {"MatMul", "Sigmoid", "Tanh"} < set(artifact.step.operators)
    assert not {"LSTM", "GRU", "Shape", "ConstantOfShape", "If", "Loop", "Scan"} & set(artifact.step.operators)


def test_the_metadata_says_how_the_file_is_run(tagger):
    _, path, artifact = tagger
    proto = onnx.load(path.with_name("model.step.onnx"))
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(metadata[METADATA_KEY]) == artifact.step.stream.model_dump(mode="json")
    assert [(i.name, i.time_axis, i.lengths) for i in artifact.step.stream.inputs] == [
        ("words", 1, False), ("speaker", None, False), ("lengths", None, True),
    ]  # fmt: skip


def test_chained_steps_equal_the_whole_sequence_file_also_where_samples_are_padded(tagger):
    _, path, artifact = tagger
    inputs = (torch.randint(WORDS, (4, 17)), torch.randn(4, 2), torch.tensor([17, 1, 5, 16]))
    tags, verdict = Steps(path.with_name(artifact.step.path))(*inputs)
    expected_tags, expected_verdict = OnnxFile(path)(*inputs)
    valid = (torch.arange(17) < inputs[2][:, None])[..., None]
    torch.testing.assert_close(tags, expected_tags * valid, **EXPORTED_FLOAT32)
    torch.testing.assert_close(verdict, expected_verdict, **EXPORTED_FLOAT32)


def test_agreement_is_shown_at_unseen_sizes_and_at_ten_times_the_tasks_length(tagger):
    *_, artifact = tagger
    assert {(point.batch, point.length) for point in artifact.step.parity.points} > {(1, 1), (3, 29), (1, 110)}
    assert artifact.step.parity.passed
    assert artifact.step.chained.passed
    assert max(point.length for point in artifact.step.chained.points) == 29


def test_the_program_of_the_loop_needs_no_torch_and_gives_the_same_numbers(tagger):
    model, path, artifact = tagger
    stream = _stream(path, artifact)
    words, speaker = torch.randint(WORDS, (1, 9)), torch.randn(1, 2)
    with torch.no_grad():
        tags, verdict = model(words, speaker, torch.tensor([9]))
    for _ in range(2):  # the second time after `reset`
        found = [stream.step({"words": word.numpy(), "speaker": speaker.numpy()}) for word in words.split(1, 1)]
        torch.testing.assert_close(torch.cat([torch.tensor(f["tags"]) for f in found], 1), tags, **EXPORTED_FLOAT32)
        torch.testing.assert_close(torch.tensor(found[-1]["verdict"]), verdict, **EXPORTED_FLOAT32)
        stream.reset()


def test_bench_makes_up_the_inputs_of_a_step(tagger):
    _, path, artifact = tagger
    result = call("bench", path.with_name(artifact.step.path), "--rounds", "8", "--runs", "1")
    assert (result.code, "\nbatch 1, length 1, threads 1, " in result.err) == (0, True)


def test_inputs_of_another_number_are_refused(tagger):
    _, path, artifact = tagger
    with pytest.raises(UsageError, match="streams sequences of the inputs words, speaker, lengths, got 1 inputs"):
        Steps(path.with_name(artifact.step.path))(torch.zeros(1, 3))


def test_a_whole_sequence_file_is_no_step_file(tagger):
    with pytest.raises(ExportError, match="is not a step file"):
        Steps(tagger[1])


def test_metadata_that_does_not_fit_the_file_is_refused(tagger, tmp_path):
    proto = onnx.load(tagger[1].with_name("model.step.onnx"))
    for change, message in (({"chunk": "x"}, "cannot read: chunk"), ({"states": []}, "names other inputs or outputs")):
        spoilt = json.loads(proto.metadata_props[0].value) | change
        other = onnx.ModelProto.FromString(proto.SerializeToString())
        other.metadata_props[0].value = json.dumps(spoilt)
        onnx.save(other, tmp_path / "spoilt.onnx")
        with pytest.raises(ExportError, match=message):
            Steps(tmp_path / "spoilt.onnx")


def test_an_aaren_keeps_a_fixed_state_and_attention_one_that_grows(decoder):
    *_, artifact = decoder
    prefix = "encoder.layers."
    assert [(item.name.removeprefix(prefix), item.shape) for item in artifact.step.inputs[1:]] == [
        ("0.self_attn.a", ("batch", 2, 4)), ("0.self_attn.c", ("batch", 2)), ("0.self_attn.m", ("batch", 2)),
        ("1.self_attn.k", ("batch", 2, "past", 4)), ("1.self_attn.v", ("batch", 2, "past", 4)),
    ]  # fmt: skip
    stream = artifact.step.stream
    assert stream.state_bytes(0) == 4 * (2 * 4 + 2 + 2)
    assert stream.state_bytes(100) - stream.state_bytes(0) == 100 * 4 * 2 * WIDTH


def test_aaren_steps_hold_at_ten_times_the_length_without_cumulative_sums(decoder):
    _, path, artifact = decoder
    assert not {"CumSum", "ReduceLogSumExp", "Scan", "Loop", "If", "Attention"} & set(artifact.step.operators)
    features = torch.randn(2, 10 * 11, INPUT)
    found = Steps(path.with_name(artifact.step.path))(features)
    torch.testing.assert_close(found, OnnxFile(path)(features), **EXPORTED_FLOAT32)
    assert (1, 110) in {(point.batch, point.length) for point in artifact.step.chained.points}


def test_a_chunk_of_native_nodes_reaches_over_the_end_of_a_sequence(tmp_path):
    model = nn.Sequential(UnevenRecurrent("LSTM", INPUT, [[7], [3]], batch_first=True), First())
    _, path, artifact = _export(model, features_task({"y": TIMED}), tmp_path / "model.onnx", chunk=4)
    assert artifact.step.operators["LSTM"] == 2
    assert artifact.step.inputs[0].shape == (1, 4, INPUT)
    features = torch.randn(2, 10, INPUT)
    found = Steps(path.with_name(artifact.step.path))(features)
    torch.testing.assert_close(found, OnnxFile(path)(features), **EXPORTED_FLOAT32)


class Windowed(nn.Module):
    """Causal convolutions in both forms, and a GRU."""

    def __init__(self):
        super().__init__()
        self.padded, self.chomped = nn.Conv1d(INPUT, 8, 3), nn.Conv1d(8, 8, 3, padding=4, dilation=2, groups=8)
        self.rnn, self.head = nn.GRU(8, 6, batch_first=True), nn.Linear(6, 3)

    def forward(self, features):
        y = torch.relu(self.padded(nn.functional.pad(features.transpose(1, 2), (2, 0))))
        y = torch.relu(self.chomped(y)[..., :-4])
        return self.head(self.rnn(y.transpose(1, 2))[0])


@pytest.mark.parametrize("options", [{}, {"chunk": 3}, {"batch": "dynamic"}], ids=str)
def test_causal_convolutions_remember_their_inputs_and_pad_nothing(tmp_path, options):
    _, path, artifact = _export(Windowed, features_task({"y": TIMED}), tmp_path / "model.onnx", **options)
    assert {"Pad", "Shape", "If"}.isdisjoint(artifact.step.operators)
    steps = Steps(path.with_name(artifact.step.path))
    assert [state.name for state in artifact.step.stream.states] == ["padded.x", "chomped.x", "rnn.h"]
    features = torch.randn(2 if options.get("batch") else 1, 50, INPUT)
    torch.testing.assert_close(steps(features), OnnxFile(path)(features), **EXPORTED_FLOAT32)


class Cells(nn.Module):
    """A cell in a loop, from a learned state."""

    def __init__(self):
        super().__init__()
        self.cell, self.start = nn.GRUCell(INPUT, 3), nn.Parameter(torch.tensor([0.5, -1.0, 2.0]))

    def forward(self, features):
        h, outputs = self.start.expand(features.size(0), -1), []
        for position in range(features.size(1)):
            h = self.cell(features[:, position], h)
            outputs.append(h)
        return torch.stack(outputs, 1)


def test_a_cell_in_a_loop_streams_where_the_task_has_one_length(tmp_path):
    task = features_task({"y": TIMED}, length=4, min_length=4, max_length=4)
    _, path, artifact = _export(Cells, task, tmp_path / "model.onnx")
    assert artifact.inputs[0].shape == ("batch", 4, INPUT)
    assert artifact.step.stream.states[0].initial == (0.5, -1.0, 2.0)
    assert _stream(path, artifact).states["cell.h"].tolist() == [[0.5, -1.0, 2.0]]


class Longer(nn.Module):
    """Goes another way beyond 20 positions."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(INPUT, 3, batch_first=True)

    def forward(self, features):
        beyond = (torch.ones_like(features).cumsum(1)[..., :3] - 20).clamp(min=0)
        return self.rnn(features)[0] + beyond


def test_a_step_file_that_disagrees_is_not_left_behind_and_neither_is_the_other(tmp_path):
    with pytest.raises(ParityError, match="the chained steps of the step file disagree with PyTorch") as caught:
        _export(Longer, features_task({"y": TIMED}), tmp_path / "model.onnx")
    assert "  29  " in caught.value.message
    assert list(tmp_path.iterdir()) == []
