"""A whole run: right on the exported file, reproducible, and nothing lost when it fails."""

import json
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

import compressor
from compressor import recipe
from compressor.errors import CompressorError, ExportError, MethodError, OutputError, ParityError, TaskError
from compressor.pipeline.limits import check_limits
from compressor.pipeline.run import run
from compressor.report import Report
from compressor.task import loading as tasks
from tests.folders import BLOBS, HALF, carried_out, write_folder

WITHOUT_LOSS = BLOBS.replace(
    "return nn.functional.cross_entropy(outputs, target)", 'raise NotImplementedError("no labels")'
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("pipeline"), BLOBS, HALF)


def _run(folder, out, *, task=BLOBS, overrides=(), **options):
    file = folder / f"task_{abs(hash(task))}.py"
    file.write_text(task)
    chosen = recipe.load(str(folder / "recipe.yaml"), overrides)
    return run(chosen, tasks.load(str(file)), out, quick=True, device="cpu", **options)


@pytest.fixture(scope="module")
def done(folder):
    out = folder / "run"
    return out, _run(folder, out)


def test_the_run_directory_holds_what_the_report_says(done):
    out, report = done
    assert Report.from_json((out / "report.json").read_text()) == report
    assert sorted(path.name for path in out.iterdir()) == sorted(report.files)
    assert {"model.onnx", "original.onnx", "model.safetensors", "report.html", "recipe.yaml"} <= set(report.files)


def test_the_report_measures_the_smaller_file(done):
    out, report = done
    compressed = report.compressed[0]
    assert compressed.artifact.bytes == (out / "model.onnx").stat().st_size < report.original.artifact.bytes / 1.5
    assert compressed.parameters < report.original.parameters / 2
    assert compressed.macs < report.original.macs / 2
    assert compressed.score.value == pytest.approx(compressed.torch_score.value)
    assert compressed.score.interval.low <= compressed.score.value <= compressed.score.interval.high


def test_masks_survive_the_removal_of_units_and_retraining(done):
    _, report = done
    weights = [layer for layer in report.compressed[0].layers if "weight" in layer.name and "rnn" in layer.name]
    assert sum(layer.nonzeros for layer in weights) < 0.95 * sum(layer.parameters for layer in weights)


def test_the_compressed_model_loads_into_the_users_class_bit_equal(done):
    out, _ = done
    task = tasks.load(str(next(out.parent.glob("task_*.py"))))
    again = compressor.load(out, task)
    features, lengths = task.example(5, 13)
    onnx = __import__("compressor.runtimes.onnx_runtime", fromlist=["OnnxFile"]).OnnxFile(out / "model.onnx")
    torch.testing.assert_close(again(features, lengths), onnx(features, lengths), atol=1e-5, rtol=1e-4)
    from safetensors.torch import load_file

    for name, value in load_file(out / "model.safetensors").items():
        assert torch.equal(again.state_dict()[name], value)


def test_the_same_seed_gives_the_same_bytes_again(done, folder, tmp_path):
    out, _ = done
    _run(folder, tmp_path / "again")
    for name in ("model.onnx", "original.onnx", "model.safetensors", "model.json"):
        assert (out / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_another_recipes_full_run_is_not_overwritten_without_force(done, folder, tmp_path):
    out = tmp_path / "full"
    shutil.copytree(done[0], out)
    text = (out / "report.json").read_text()
    (out / "report.json").write_text(text.replace('"quick": true', '"quick": false', 1))
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    hint = "\nhint: choose another --out, or --force to replace it"
    for override, text in (
        ("steps.1.ratio=0.4", "`half` with other options: steps.1.ratio is 0.5 there and 0.4 now"),
        ("name=third", "another recipe (`half`)"),
    ):
        with pytest.raises(OutputError) as caught:
            _run(folder, out, overrides=[override])
        assert caught.value.render() == f"error: {out} holds a run of {text}{hint}"
    assert before == {path.name: path.read_bytes() for path in out.iterdir()}


def test_a_rehearsal_is_replaced_by_any_run(done, folder, tmp_path):
    out = tmp_path / "rehearsed"
    shutil.copytree(done[0], out)
    assert _run(folder, out, overrides=["steps.1.ratio=0.4"]).recipe["steps"][1]["ratio"] == 0.4


def test_the_report_says_where_the_time_went(done):
    out, report = done
    names = [stage.name for stage in report.stages]
    assert names[:3] == ["loading and trying the task", "evaluating the original", "exporting the original"]
    assert names[-1] == "measuring the files"
    assert "step 2: magnitude" in names
    assert all(stage.seconds > 0 for stage in report.stages)
    assert "Where the time went" in (out / "report.md").read_text()


def test_a_run_that_fails_leaves_the_older_one_and_what_it_has_finished(done, folder, tmp_path):
    out, _ = done
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    broken = BLOBS.replace(  # not in the first batch, which the dry run would refuse
        "        return nn.functional.cross_entropy(outputs, target)",
        "        self.calls = getattr(self, 'calls', 0) + 1\n"
        "        return nn.functional.cross_entropy(outputs, target) * (1.0 if self.calls == 1 else float('nan'))",
    )
    for target in (out, tmp_path / "new"):
        with pytest.raises(MethodError, match=r"`steps.2` \(retrain\): .*nan") as caught:
            _run(folder, target, task=broken)
        assert f"what is finished is kept in {target / 'unfinished'}" in caught.value.hint
    assert before == {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["unfinished"]
    _run(folder, out, restart=True)
    assert not (out / "unfinished").exists()


def test_weights_outlive_an_export_that_fails_until_a_run_succeeds(folder, tmp_path):
    out = tmp_path / "out"
    strict = ["exports=[{format: ort, atol: 1e-15, rtol: 1e-15}]"]  # the original is exported before: as another file
    with pytest.raises(ParityError, match="disagrees with PyTorch") as caught:
        _run(folder, out, overrides=strict)
    assert "compressor.load(" in caught.value.hint
    assert [path.name for path in out.iterdir()] == ["unfinished"]
    task = tasks.load(str(folder / "task.py"))
    kept = compressor.load(out / "unfinished", task)
    assert kept.rnn.hidden_size == 12
    with pytest.raises(OutputError, match="unfinished run under other conditions"):
        _run(folder, out)
    _run(folder, out, restart=True)
    assert torch.equal(compressor.load(out, task).rnn.weight_hh_l0, kept.rnn.weight_hh_l0)
    assert not (out / "unfinished").exists()


@pytest.mark.parametrize("names", [("model", "model"), ("original", "other")])
def test_files_that_would_have_one_name_are_refused_before_any_work(folder, tmp_path, names):
    exports = ", ".join(f"{{format: onnx, name: {name}}}" for name in names)
    with pytest.raises(CompressorError, match=f"two files of `exports` would be called `{names[0]}.onnx`"):
        _run(folder, tmp_path / "out", overrides=[f"exports=[{exports}]"])
    assert not (tmp_path / "out").exists()


def test_an_original_that_cannot_be_exported_is_told_before_any_step(folder, tmp_path):
    with pytest.raises(ParityError, match="disagrees with PyTorch"):
        _run(folder, tmp_path / "out", overrides=["exports.0.atol=1e-15", "exports.0.rtol=1e-15"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["steps.1.targets=[encoder.*]"], "`encoder.*` matches nothing in the model"),
        (["steps.1.ratio=0.001"], "no unit would go from layer 0 of `rnn`, which has 23"),
        (["steps.1={method: magnitude, prune: units, count: 23}"], "this would leave no unit in layer 0 of `rnn`"),
    ],
)
def test_a_step_that_would_do_nothing_or_too_much_is_an_error(folder, tmp_path, overrides, message):
    with pytest.raises(MethodError) as caught:
        _run(folder, tmp_path / "out", overrides=overrides)
    assert message in caught.value.message
    assert caught.value.message.startswith("`steps.1` (magnitude): ")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "return torch.randn(batch, length, 7), torch",
            "return torch.randn(batch, length, 5), torch",
            "does not run on",
        ),
        ("(forward(*inputs).argmax(1) == labels).float()", "float('nan')", "`evaluate`"),
        ("return Net()", "net = Net(); net.head.bias.data[0] = torch.inf; return net", "not finite: `head.bias`"),
    ],
)
def test_a_task_that_is_wrong_is_refused_before_any_work(folder, tmp_path, old, new, message):
    with pytest.raises(TaskError) as caught:
        _run(folder, tmp_path / "out", task=BLOBS.replace(old, new))
    assert message in caught.value.message
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "steps",
    [
        "[{method: magnitude, prune: weights, sparsity: 0.3}, {method: retrain}]",
        "[{method: magnitude, prune: weights, sparsity: 0.3}, {method: retrain, distill: true, distill_weight: 0.9}]",
        "[{method: magnitude, prune: weights, sparsity: 0.3, schedule: linear, rounds: 2, retrain: {}}]",
        "[{method: sparsify, ratio: 0.5, retrain: {}}]",
    ],
)
def test_a_step_that_needs_the_loss_of_a_task_without_one_is_refused_before_any_work(folder, tmp_path, steps):
    with pytest.raises(TaskError, match="has no `loss`: no labels"):
        _run(folder, tmp_path / "out", task=WITHOUT_LOSS, overrides=[f"steps={steps}"])
    assert not (tmp_path / "out").exists()


def test_a_task_without_a_loss_is_taught_by_the_original_alone(folder, tmp_path):
    alone = "{method: retrain, distill: true, distill_weight: 1.0}"
    report = _run(folder, tmp_path / "out", task=WITHOUT_LOSS, overrides=[f"steps=[{alone}]"])
    assert [step.method for step in report.steps] == ["retrain"]


def test_a_folder_with_other_things_and_a_file_are_refused(folder, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="is not empty and holds no run of this tool"):
        _run(folder, tmp_path)
    with pytest.raises(OutputError, match=r"thesis\.tex is a file"):
        _run(folder, tmp_path / "thesis.tex")
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_an_unwritable_folder_is_refused(folder):
    with pytest.raises(OutputError, match=r"cannot write /proc/compressor: "):
        _run(folder, Path("/proc/compressor"))


def limited(folder, out, largest, *, at_the_page=False):
    """A run of which no file may have more bytes, as on a disk that is full, from its start or its page on."""
    script = textwrap.dedent(f"""
        import resource, signal, sys
        from compressor.cli import main
        from compressor.render import html
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        def fill():
            resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest}))
        def page(report, drawn=html.page):
            fill()
            return drawn(report)
        if {at_the_page}:
            html.page = page
        else:
            fill()
        sys.argv = ["compressor", "run", {str(folder / "recipe.yaml")!r}, "--task", {str(folder / "task.py")!r},
                    "--out", {str(out)!r}, "--quick", "--device", "cpu"]
        main()
    """)
    assert resource.RLIMIT_FSIZE is not None and signal.SIGXFSZ  # noqa: PT018 - the platform can do this test
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 2, result.stderr
    assert "error: cannot write" in result.stderr
    assert "File too large" in result.stderr
    assert "Traceback" not in result.stderr
    return result


def test_a_disk_that_fills_up_leaves_nothing_that_looks_finished(folder, tmp_path):
    limited(folder, tmp_path / "full", 9000)
    assert not (tmp_path / "full").exists()


@pytest.mark.slow
def test_a_disk_that_is_full_at_the_last_file_loses_nothing_that_was_made(done, folder, tmp_path):
    out = tmp_path / "full"
    result = limited(folder, out, 10_000, at_the_page=True)
    assert "report.html: File too large" in result.stderr, result.stderr
    assert f"what is finished is kept in {out / 'unfinished'}" in result.stderr
    again = carried_out(folder, out, quick=True)
    assert (out / "run.log").read_text().count("step 1 of 3") == 1
    assert sorted(path.name for path in out.iterdir()) == sorted(again.files)
    assert (out / "model.onnx").read_bytes() == (done[0] / "model.onnx").read_bytes()


STREAMING = """
import torch
from torch import nn
from compressor import Task

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(7, 23, batch_first=True)
        self.head = nn.Linear(23, 3)

    def forward(self, features, state):
        steps, state = self.rnn(features, state)
        return self.head(steps), state

class Streaming(Task):
    inputs = {"features": {0: "batch", 1: "time"}, "state": {1: "batch"}}
    outputs = {"scores": {0: "batch", 1: "time"}, "next_state": {1: "batch"}}
    length, max_length = 5, 20

    def model(self):
        torch.manual_seed(1)
        return Net()

    def example(self, batch, length):
        return torch.randn(batch, length, 7), torch.zeros(1, batch, 23)

    def batches(self, generator):
        for _ in range(3):
            x = torch.randn(11, 5, 7, generator=generator)
            yield (x, torch.zeros(1, 11, 23)), x[..., 0] > 0

    def loss(self, outputs, target):
        return nn.functional.cross_entropy(outputs[0].flatten(0, 1), target.long().flatten())

    def evaluate(self, forward):
        x = torch.randn(31, 10, 7, generator=torch.Generator().manual_seed(0))
        state, right = torch.zeros(1, 31, 23), []
        for part in x.split(5, 1):
            scores, state = forward(part, state)
            right.append(scores.argmax(-1) == (part[..., 0] > 0))
        return torch.cat(right, 1).float().mean(1)
"""


def test_a_streaming_model_keeps_its_states_as_inputs_and_outputs_of_the_file(folder, tmp_path):
    report = _run(folder, tmp_path / "out", task=STREAMING, overrides=["steps.2.distill=true"])
    artifact = report.compressed[0].artifact
    assert [tensor.shape for tensor in artifact.inputs][1] == (1, "batch", 12)
    assert [tensor.shape for tensor in artifact.outputs][1][-1] == 12
    assert report.compressed[0].score.value == pytest.approx(report.compressed[0].torch_score.value)


def test_a_step_file_is_evaluated_timed_and_limited_like_the_file_beside_it(folder, tmp_path):
    out = tmp_path / "out"
    report = _run(folder, out, overrides=["exports.0.stream=true", "limits.file_ratio=1.5"])
    assert Report.from_json((out / "report.json").read_text()) == report
    names = {"original.step.onnx", "model.step.onnx"}
    assert names < set(report.files) == {path.name for path in out.iterdir()}
    before, after = report.original, report.compressed[0]
    assert after.step.score.value == pytest.approx(after.score.value)
    assert (before.step.latency.length, before.step.past, before.latency.length) == (1, 10, 11)
    assert before.step.macs < before.macs / 8
    assert after.step.speedup is not None
    states = [file.artifact.step.stream.state_bytes(0) for file in (before, after)]
    assert states == [4 * 23, 4 * 12]
    assert [limit.name for limit in report.limits] == [
        "file_ratio", "model.step.onnx: file_ratio",
    ]  # fmt: skip
    assert "Not judged by a rehearsal" in (out / "report.md").read_text()
    for view in ("report.md", "report.html"):
        text = (out / view).read_text()
        assert all(words in text for words in ("Step by step", "model.step.onnx", "rnn.h.next", "Chained steps agree"))


def test_a_second_export_may_stream_while_the_first_does_not(folder, tmp_path):
    exports = "exports=[{format: onnx}, {format: onnx, name: live, stream: true}]"
    report = _run(folder, tmp_path / "out", overrides=[exports])
    assert report.original.step is not None
    assert [file.step is None for file in report.compressed] == [True, False]


def test_a_model_that_cannot_stream_is_refused_before_any_step(folder, tmp_path):
    both = BLOBS.replace("nn.GRU(7, 23,", "nn.GRU(7, 23, bidirectional=True,").replace("Linear(23", "Linear(46")
    with pytest.raises(ExportError, match="`rnn` is bidirectional"):
        _run(folder, tmp_path / "out", task=both, overrides=["exports.0.stream=true"])
    assert not (tmp_path / "out").exists()


OWN_ATTENTION = """
import torch
from torch import nn
from compressor import AttentionParts, Task

class Mine(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads, self.qkv, self.out = 2, nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        later = torch.ones(x.size(1), x.size(1), dtype=torch.bool).triu(1)
        weights = (q @ k.mT / 2.0).masked_fill(later, float("-inf")).softmax(-1)
        return x + self.out((weights @ v).transpose(1, 2).flatten(2))

class Signs(Task):
    inputs = {"x": {0: "batch", 1: "time"}}
    outputs = {"y": {0: "batch", 1: "time"}}
    length, max_length = 5, 13
    attention = {"0": AttentionParts(query="qkv", key="qkv", value="qkv", output="out", heads="heads")}

    def model(self):
        torch.manual_seed(0)
        return nn.Sequential(Mine(), nn.Linear(8, 2))

    def example(self, batch, length):
        return (torch.randn(batch, length, 8),)

    def batches(self, generator):
        x = torch.randn(4, 7, 5, 8, generator=generator)
        return (((part,), (part[..., 0] > 0).long()) for part in x)

    def loss(self, outputs, target):
        return nn.functional.cross_entropy(outputs.flatten(0, 1), target.flatten())

    def evaluate(self, forward):
        x = torch.randn(17, 5, 8, generator=torch.Generator().manual_seed(1))
        return (forward(x).argmax(-1) == (x[..., 0] > 0)).float().mean(1)
"""


@pytest.mark.slow
def test_where_only_a_step_makes_the_model_stream_the_original_is_exported_whole(folder, tmp_path):
    step = "steps=[{method: aaren, query: mean, distill_steps: 0}]"
    report = _run(folder, tmp_path / "out", task=OWN_ATTENTION, overrides=[step, "exports.0.stream=true"],
                  probes=False)  # fmt: skip
    before, after = report.original, report.compressed[0]
    assert (before.step, before.artifact.step, after.step.drop, after.step.speedup) == (None, None, None, None)
    assert [state.name for state in after.artifact.step.stream.states] == ["0.qkv.a", "0.qkv.c", "0.qkv.m"]
    assert after.artifact.step.parity.passed
    assert any(note.startswith("The original has no step file: no layer of the model") for note in report.notes)
    assert "model.step.onnx" in (tmp_path / "out" / "report.md").read_text().partition("Step by step")[2]


def test_controls_go_through_the_rest_of_the_recipe_and_leave_the_result_alone(folder, tmp_path):
    steps = "steps=[{method: lattice, prune: units, ratio: 0.5, compare: %s}, {method: retrain, epochs: 2, lr: 1e-2}]"
    report = _run(folder, tmp_path / "with", overrides=[steps % "true"])
    _run(folder, tmp_path / "without", overrides=[steps % "false"])
    assert [other.name for other in report.steps[0].beside] == ["magnitude", "random"]
    for other in report.steps[0].beside:
        assert other.parameters == report.steps[0].parameters
        assert other.score.samples == other.final.samples == 101
        assert other.final.value != other.score.value  # it was retrained
    assert report.steps[1].beside == ()
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("with", "without")]
    assert weights[0] == weights[1]


@pytest.mark.slow
def test_a_file_that_is_larger_than_the_original_is_refused_unless_that_is_accepted(folder, tmp_path):
    unrolled = "format: onnx, precision: int8, rounding: {quantize_for: npu}, shapes: {batch: 1, time: 11}"
    exports = f"exports=[{{name: wide, {unrolled}}}, {{name: accepted, may_be_larger: true, {unrolled}}}]"
    report = _run(folder, tmp_path / "out", overrides=["steps=[]", exports])
    (skip,) = report.refused
    before = report.original.artifact.bytes
    assert f"bytes, more than the {before:,} of the original" in skip.reason
    assert "may_be_larger: true" in skip.reason
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith("wide")]
    assert report.compressed[0].artifact.bytes > before


def test_limits_are_checked_on_the_exported_file(done):
    _, report = done
    from compressor.recipe.model import Limits

    limits = Limits(
        metric_drop=0.0, metric_drop_relative=0.1, file_ratio=1.0, speedup=1e-6, latency_ms=1e6, file_bytes=10
    )
    worse = report.compressed[0].model_copy(
        update={"score": report.original.score.model_copy(update={"value": report.original.score.value - 0.01})}
    )
    checked = {c.name: c.met for c in check_limits(limits, [report.original], [worse], report.speedups)}
    assert checked == {
        "metric_drop": False, "metric_drop_relative": True, "file_ratio": True, "file_bytes": False, "speedup": True,
        "latency_ms": True,
    }  # fmt: skip


def test_limits_of_a_microcontroller_are_checked_where_the_file_was_emulated(done):
    _, report = done
    from compressor.recipe.model import Limits
    from compressor.report import Emulated

    limits = Limits(flash_bytes=9000, ram_bytes=800)
    facts = {"cpu": "cortex-m4", "board": "", "compiler": "", "stack_bytes": 100, "instructions": 1, "calls": 1}
    emulated = Emulated(**facts, flash_bytes=9000, ram_bytes=801, max_absolute=0.0, atol=1.0)
    one = report.compressed[0]
    there = one.model_copy(update={"artifact": one.artifact.model_copy(update={"emulated": emulated})})
    checked = [
        {c.name: (c.met, c.reached) for c in check_limits(limits, [report.original], [each], report.speedups)}
        for each in (one, there)
    ]
    assert checked == [{}, {"flash_bytes": (True, 9000.0), "ram_bytes": (False, 801.0)}]


def test_the_report_is_valid_json_with_the_resolved_recipe(done):
    out, _ = done
    content = json.loads((out / "report.json").read_text())
    assert content["recipe"]["steps"][1]["ratio"] == 0.5
    assert content["quick"] is True
    assert "rehearsal" in content["notes"][-1]


def test_every_error_of_ours_is_one_tree():
    assert issubclass(OutputError, CompressorError)
    assert issubclass(MethodError, CompressorError)


@pytest.fixture(scope="module")
def several(folder):
    overrides = (
        "exports=[{format: onnx}, {format: mnn, form: step}, {format: ncnn, route: onnx}]",
        "steps=[{method: magnitude, prune: units, ratio: 0.5}]",
    )
    out = folder / "several"
    return out, _run(folder, out, overrides=overrides, probes=False)


def test_an_export_is_compared_with_the_original_in_its_own_format_and_runtime(several):
    out, report = several
    assert [measurement.artifact.format for measurement in report.compressed] == ["onnx", "mnn"]
    before, after = report.original_of(1), report.compressed[1]
    assert before.artifact.path == "original.step.mnn"
    assert before.latency.runtime == after.latency.runtime == after.artifact.runtime
    assert after.latency.runtime.startswith("MNN ")
    assert (after.latency.length, report.compressed[0].latency.length) == (1, 11)
    assert after.score.value == pytest.approx(after.torch_score.value)
    assert report.speedups[1] is not None
    assert {"model.step.mnn", "model.step.mnn.json", "original.step.mnn"} <= {path.name for path in out.iterdir()}
    assert Report.from_json((out / "report.json").read_text()) == report


def test_a_refused_export_is_told_with_its_reason_and_does_not_cost_the_others(several):
    out, report = several
    assert [skip.name for skip in report.refused] == ["model.ncnn"]
    assert "not exists or registered" in report.refused[0].reason
    assert "`form: step`" in report.refused[0].reason
    assert any(note.startswith("The original is not exported as `ncnn`") for note in report.notes)
    assert not [path for path in out.iterdir() if "ncnn" in path.name]


def test_the_views_show_which_original_and_runtime_a_file_belongs_to(several):
    out, _ = several
    for name in ("report.md", "report.html"):
        text = (out / name).read_text()
        assert "original (mnn, step)" in text
        assert "Export failed: model.ncnn" in text
        assert "MNN 3" in text
