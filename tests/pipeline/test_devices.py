"""Whole runs and studies on an accelerator: the report of the CPU, at the same sizes and the same metric."""

import pytest
import torch

from compressor.errors import UsageError
from compressor.methods.magnitude import Magnitude
from compressor.nn.accelerators import device_name, has_float64
from compressor.pipeline.environment import find_device
from compressor.report import Report
from compressor.studies.sensitivity import Prober
from compressor.task import loading as tasks
from tests.folders import BLOBS, carried_out, recipe_of, write_folder

RECIPE = recipe_of(
    "{method: magnitude, prune: units, ratio: 0.25, score: taylor}",
    "{method: lattice, prune: units, ratio: 0.25}",
    '{method: low_rank_attention, rank: 3, targets: ["*"], recurrent: smaller}',
    "{method: retrain, epochs: 2, lr: 1e-2, distill: true, bf16: true, noise_eta: 0.001, keep_best: true}",
    exports=("{format: onnx}", "{format: onnx, precision: int4, name: rounded}"),
    seed=3,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("devices"), BLOBS, RECIPE)


def _run(folder, name, device):
    return carried_out(folder, name, device=device, quick=True)


@pytest.fixture(scope="module")
def on_cpu(folder):
    return _run(folder, "cpu", "cpu")


def check_same(report, expected):
    assert [step.parameters for step in report.steps] == [step.parameters for step in expected.steps]
    assert [one.artifact.bytes for one in report.compressed] == [one.artifact.bytes for one in expected.compressed]
    scores = [one.score.value for one in report.compressed]
    assert scores == pytest.approx([one.score.value for one in expected.compressed], abs=0.02)


def test_a_run_on_an_accelerator_gives_the_files_of_the_cpu(folder, on_cpu, accelerator):
    report = _run(folder, "accelerator", "auto")
    check_same(report, on_cpu)
    assert (report.conditions.device, report.environment.device) == (accelerator.type, device_name(accelerator))
    assert Report.from_json((folder / "accelerator" / "report.json").read_text()) == report


def test_a_run_on_a_device_without_float64_says_what_ran_on_the_cpu(folder, on_cpu, without_float64):
    report = _run(folder, "without", without_float64.type)
    check_same(report, on_cpu)
    told = [any("carried out on the CPU" in note for note in step.notes) for step in report.steps]
    assert told == [True, True, True, False]
    assert all(
        "carried out on the CPU" in (folder / "without" / name).read_text() for name in ("report.md", "report.html")
    )


def test_sensitivity_on_an_accelerator_is_that_of_the_cpu(folder, accelerator):
    loaded = tasks.load(str(folder / "task.py"))
    step = Magnitude(prune="units", ratio=0.5)
    probers = [Prober(loaded, loaded.model(), step, torch.device(device)) for device in ("cpu", accelerator)]
    on_cpu, on_accelerator = (prober.together({"rnn": 0.5}) for prober in probers)
    assert on_accelerator.parameters == on_cpu.parameters
    assert on_accelerator.value == pytest.approx(on_cpu.value)


def test_auto_takes_the_accelerator_and_the_cpu_without_one(accelerator):
    assert find_device("auto").type == find_device(accelerator.type).type == accelerator.type
    assert find_device("cpu") == torch.device("cpu")


def test_a_device_without_float64_is_noticed(without_float64):
    assert (has_float64(without_float64), has_float64(torch.device("cpu"))) == (False, True)


def test_a_device_that_is_not_there_is_refused_with_what_there_is(accelerator):
    missing = next(name for name in ("mps", "xpu") if name != accelerator.type)
    with pytest.raises(UsageError, match=f"there is no `{missing}` device") as caught:
        find_device(missing)
    assert caught.value.hint == f"use --device auto, cpu or {accelerator.type}; `compressor doctor` tells more"


def test_an_unknown_device_is_refused():
    with pytest.raises(UsageError, match="unknown device `tpu`") as caught:
        find_device("tpu")
    assert caught.value.hint == "use auto, cpu, cuda, mps or xpu"
