"""A run of a task whose model is several files: they fit together, and the metric is that of all of them."""

import onnxruntime
import pytest
import torch
from torch import nn

import compressor
from compressor import Task, recipe
from compressor.errors import ExportError, UsageError
from compressor.pipeline.export_alone import export_alone
from compressor.pipeline.file_task import task_of_file
from compressor.pipeline.limits import check_limits
from compressor.pipeline.run import run
from compressor.recipe.exports import options_of
from compressor.recipe.model import Limits
from compressor.task.guard import GuardedTask
from tests.folders import recipe_of

pytestmark = pytest.mark.slow
HIDDEN, SYMBOLS, START, STEPS = 8, 7, 0, 5
RECIPE = recipe_of("{method: magnitude, prune: units, ratio: 0.5}")


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(SYMBOLS, 5)
        self.rnn = nn.GRU(5, HIDDEN, batch_first=True, bidirectional=True)

    def forward(self, source):
        memory, last = self.rnn(self.embed(source))
        return {"memory": memory, "state": last[:1]}


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.rnn = nn.Embedding(SYMBOLS, 5), nn.GRU(5, HIDDEN, batch_first=True)
        self.query, self.head = nn.Linear(HIDDEN, 2 * HIDDEN), nn.Linear(3 * HIDDEN, SYMBOLS)

    def forward(self, tokens, memory, state):
        steps, state = self.rnn(self.embed(tokens), state)
        weights = (self.query(steps) @ memory.transpose(1, 2)).softmax(-1)
        return {"scores": self.head(torch.cat([steps, weights @ memory], -1)), "next_state": state}


class Translator(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = Encoder(), Decoder()

    def forward(self, source, tokens):
        return self.decoder(tokens, **self.encoder(source))["scores"]


def greedy(encode, decode, source):
    encoded, token, found = encode(source), torch.full((len(source), 1), START), []
    memory, state = encoded["memory"], encoded["state"]
    for _ in range(STEPS):
        decoded = decode(token, memory, state)
        token, state = decoded["scores"].argmax(-1), decoded["next_state"]
        found.append(token)
    return torch.cat(found, 1)


class Translating(Task):
    modules = ("encoder", "decoder")
    length, max_length = 6, 12
    metric = "like the model"

    def model(self):
        torch.manual_seed(0)
        model = Translator()
        for part in model.parameters():
            part.data *= 2.0  # so that greedy choices are not near ties
        return model

    def example(self, batch, length, target_length=4):
        return torch.randint(SYMBOLS, (batch, length)), torch.randint(SYMBOLS, (batch, target_length))

    def batches(self, generator):
        yield self.example(8, 6), None

    def loss(self, outputs, target):
        return outputs.square().mean()

    def evaluate(self, forward):
        source = torch.arange(60).view(10, 6) % SYMBOLS
        model = self.model()
        wanted = greedy(model.encoder, model.decoder, source)
        return (greedy(forward.encoder, forward.decoder, source) == wanted).float().mean(1)


def in_onnx_runtime(path):
    session = onnxruntime.InferenceSession(str(path))
    names = [item.name for item in session.get_inputs()]

    def call(*tensors):
        feed = {name: part.numpy() for name, part in zip(names, tensors, strict=True)}
        outputs = session.run(None, feed)
        return {item.name: torch.from_numpy(part) for item, part in zip(session.get_outputs(), outputs, strict=True)}

    return call


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    out, written = folder / "out", folder / "half.yaml"
    written.write_text(RECIPE)
    task = GuardedTask(Translating(), __file__)
    return run(recipe.load(str(written)), task, out, probes=False, quick=True), out


def test_an_encoder_and_a_decoder_of_half_the_units_decode_greedily_and_their_widths_agree(finished):
    report, out = finished
    encoder, decoder = (measured.artifact for measured in report.compressed)
    assert (encoder.path, decoder.path) == ("model.encoder.onnx", "model.decoder.onnx")
    assert [item.shape for item in encoder.outputs] == [("batch", "time", HIDDEN), (1, "batch", HIDDEN // 2)]
    assert [item.shape for item in decoder.inputs] == [
        ("batch", "target_length"),
        ("batch", "time", HIDDEN),
        (1, "batch", HIDDEN // 2),
    ]
    source = torch.randint(SYMBOLS, (3, 9))
    model = compressor.load(out, GuardedTask(Translating(), __file__))
    files = [in_onnx_runtime(out / artifact.path) for artifact in (encoder, decoder)]
    assert torch.equal(greedy(*files, source), greedy(model.encoder, model.decoder, source))


def test_the_originals_files_together_have_the_models_metric(finished):
    report, _ = finished
    assert [one.module for one in (report.original, *report.elsewhere)] == ["encoder", "decoder"]
    assert [one.score.value for one in (report.original, *report.elsewhere)] == [1.0, 1.0]
    first, second = report.compressed
    assert first.score == second.score == first.torch_score.model_copy(update={"interval": first.score.interval})
    assert report.baselines == (0, 1)


def test_a_files_task_is_that_of_its_module_at_the_widths_that_it_has(finished):
    _, out = finished
    task = GuardedTask(Translating(), __file__)
    for name, width in (("model.decoder.onnx", HIDDEN), ("original.decoder.onnx", 2 * HIDDEN)):
        own = task_of_file(task, out / name)
        assert own.example(2, 5)[1].shape == (2, 5, width)
        in_onnx_runtime(out / name)(*own.example(2, 5))
    with pytest.raises(UsageError, match=r"a.onnx does not say which of the task's modules it holds: encoder, decoder"):
        task_of_file(task, out / "a.onnx")


def test_parameters_and_parity_are_those_of_each_file(finished):
    report, _ = finished
    encoder, decoder = report.original.parameters, report.elsewhere[0].parameters
    assert encoder + decoder == sum(part.numel() for part in Translating().model().parameters())
    assert [sorted(one.artifact.parity.points[0].sizes) for one in report.compressed] == [[], ["target_length"]]
    assert all(one.artifact.parity.passed for one in report.compressed)


class Uneven(Translating):
    """Its decoder cannot be traced: it looks at numbers."""

    def model(self):
        model = super().model()
        model.decoder = Looking(model.decoder)
        return model


class Looking(nn.Module):
    def __init__(self, decoder):
        super().__init__()
        self.decoder = decoder

    def forward(self, tokens, memory, state):
        if memory.detach().sum().item() == 7.0:
            raise RuntimeError
        return self.decoder(tokens, memory, state)


def test_if_one_module_has_no_file_those_of_the_others_are_removed(tmp_path):
    task = GuardedTask(Uneven(), __file__)
    with pytest.raises(ExportError):
        export_alone(task, [options_of("onnx")], tmp_path, measure=False)
    assert list(tmp_path.iterdir()) == []


def test_the_limit_of_the_metric_is_held_once(finished):
    report, _ = finished
    limits = Limits(metric_drop=0.5, file_bytes=10**6)
    originals = (report.original, *report.elsewhere)
    names = [limit.name for limit in check_limits(limits, originals, report.compressed, report.speedups)]
    assert names == [f"model.{name}" for name in ("encoder.onnx: metric_drop", "encoder.onnx: file_bytes")] + [
        "model.decoder.onnx: file_bytes"
    ]
