"""Every number of a report is about the file that was exported, and none about one that was changed afterwards."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from compressor.errors import OutputError
from compressor.files import sha256
from compressor.pipeline import measuring
from compressor.pipeline import run as pipeline
from compressor.pipeline.measuring import ensure_unchanged
from compressor.report import Measurement, Part, StepMeasurement
from tests.folders import BLOBS, HALF, carried_out, write_folder
from tests.report.sample import sample


def files(folder, artifact):
    """An artifact with a step file and parts of both, all of them in `folder`."""
    names = ("model.onnx", "model.onnx.data", "model.step.onnx", "model.step.onnx.data")
    for name in names:
        (folder / name).write_bytes(name.encode())
    whole, data, step, step_data = names
    parts = {name: Part(path=name, bytes=1, sha256=sha256(folder / name), purpose="weights") for name in names}

    def described(name, part, **more):
        update = {"path": name, "sha256": sha256(folder / name), "parts": (parts[part],), **more}
        return artifact.model_copy(update=update)

    return described(whole, data, step=described(step, step_data)), names


@pytest.mark.parametrize("place", range(4))
def test_a_file_that_was_changed_after_it_was_exported_is_an_error(tmp_path, place):
    artifact, names = files(tmp_path, sample().original.artifact)
    ensure_unchanged(tmp_path, [artifact])
    (tmp_path / names[place]).write_bytes(b"another")
    with pytest.raises(OutputError, match=f"error: {names[place]} was changed after it was exported"):
        ensure_unchanged(tmp_path, [artifact])


@pytest.mark.parametrize("place", range(4))
def test_a_file_that_is_gone_is_named(tmp_path, place):
    artifact, names = files(tmp_path, sample().original.artifact)
    (tmp_path / names[place]).unlink()
    with pytest.raises(OutputError, match=f"{names[place]} cannot be read: No such file"):
        ensure_unchanged(tmp_path, [artifact])


MIB = 2**20
NAMES = {"label", "module", "artifact", "step"}
OF_THE_MODEL = {"parameters", "nonzeros", "layers", "torch_score"}
OF_THE_TASK = {"past"}
OF_THE_FILE = {"macs", "costs", "peak_memory_bytes", "latency", "score", "drop", "speedup"}


def test_figures_of_a_file_are_all_known_to_the_next_test():
    fields = {*Measurement.model_fields, *StepMeasurement.model_fields}
    assert fields == NAMES | OF_THE_MODEL | OF_THE_TASK | OF_THE_FILE


def spoil(path):
    """Let a file answer the opposite, with 8 million MACs and 64 MiB of weights more, and so in far more time."""
    proto = onnx.load(path)
    graph = proto.graph
    answer = graph.output[0].name
    for node in graph.node:
        node.output[:] = [f"{answer}.was" if name == answer else name for name in node.output]
        node.input[:] = [f"{answer}.was" if name == answer else name for name in node.input]
    constants = {
        "spoilt.shape": np.array([200, 200]),
        "spoilt.zero": np.float32(0.0),
        "spoilt.table": np.zeros(16 * MIB, np.float32),
    }
    graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items())
    nodes = [
        ("ReduceMean", [graph.input[0].name], "one", {"keepdims": 0}),
        ("Expand", ["spoilt.one", "spoilt.shape"], "square", {}),
        ("MatMul", ["spoilt.square", "spoilt.square"], "product", {}),
        ("ReduceMean", ["spoilt.product"], "mean", {"keepdims": 0}),
        ("Mul", ["spoilt.mean", "spoilt.zero"], "nothing", {}),
        ("Cast", ["spoilt.nothing"], "index", {"to": onnx.TensorProto.INT64}),
        ("Gather", ["spoilt.table", "spoilt.index"], "number", {}),
        ("Sub", ["spoilt.number", f"{answer}.was"], "", {}),
    ]
    for operator, inputs, name, attributes in nodes:
        graph.node.append(helper.make_node(operator, inputs, [f"spoilt.{name}" if name else answer], **attributes))
    onnx.save(proto, path)


FILES = ("original.onnx", "model.step.onnx", "model.onnx", "original.step.onnx")


@pytest.fixture(scope="module")
def remeasured(tmp_path_factory):
    """Measurements of one run: as it is, with two of its files spoilt before they are measured, and with the others."""
    folder = write_folder(tmp_path_factory.mktemp("remeasured"), BLOBS, HALF)
    found = {}

    def measure(setting, exported):
        found["as it is"] = result = measuring.measure(setting, exported)
        for spoilt in (FILES[:2], FILES[2:]):
            paths = [setting.folder.staging / name for name in spoilt]
            contents = [path.read_bytes() for path in paths]
            for path in paths:
                spoil(path)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(measuring, "ensure_unchanged", lambda *_: None)
                patch.setattr(setting.journal, "part", lambda name, form, make: make())  # not what was kept before
                found.update(dict.fromkeys(spoilt, measuring.measure(setting, exported)))
            for path, content in zip(paths, contents, strict=True):
                path.write_bytes(content)
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "measure", measure)
        carried_out(folder, "out", overrides=["exports.0.stream=true"], quick=True)
    return found


def of(found, name):
    """Measurement of a file, and how much faster than the original it is."""
    measurements, speedups = found
    index = int(name.startswith("model"))
    if ".step" in name:
        return measurements[index].step, measurements[index].step.speedup
    return measurements[index], speedups[index]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_figure_is_measured_on_the_file_that_it_belongs_to(remeasured, name):
    (before, _), (after, _) = of(remeasured["as it is"], name), of(remeasured[name], name)
    other = next(file for file in FILES if remeasured[file] is not remeasured[name])
    untouched, _ = of(remeasured[other], name)
    assert (untouched.macs, untouched.score) == (before.macs, before.score)
    assert after.macs == before.macs + 200**3
    assert after.score.value != before.score.value
    assert untouched.peak_memory_bytes + 32 * MIB < after.peak_memory_bytes
    assert 3 * untouched.latency.p50 < after.latency.p50


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in FILES if ".step" not in name])
def test_what_each_layer_takes_is_measured_on_the_file_too(remeasured, name):
    (before, _), (after, _) = of(remeasured["as it is"], name), of(remeasured[name], name)
    layers, rest = before.costs[:-1], before.costs[-1]
    assert [(cost.name, cost.bytes, cost.macs) for cost in after.costs[:-1]] == [
        (cost.name, cost.bytes, cost.macs) for cost in layers
    ]
    assert after.costs[-1].macs == rest.macs + 200**3
    assert after.costs[-1].bytes > rest.bytes + 64 * MIB
    assert after.costs[-1].milliseconds > rest.milliseconds  # 8 million products more


@pytest.mark.slow
@pytest.mark.parametrize("original", [name for name in FILES if name.startswith("original")])
def test_every_comparison_is_with_the_original_of_the_same_form(remeasured, original):
    model = original.replace("original", "model")
    for spoilt, sign in ((original, 1), (model, -1)):
        (_, before), (after, ratio) = of(remeasured["as it is"], model), of(remeasured[spoilt], model)
        assert sign * math.log(ratio.ratio / before.ratio) > math.log(3)
        scores = [of(remeasured[spoilt], name)[0].score.value for name in (original, model)]
        assert after.drop.value == pytest.approx(scores[0] - scores[1])
