"""ONNX Runtime Web in a headless Chromium: the numbers of ONNX Runtime, the browser's clock, and what is refused."""

import re
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx import helper

from compressor.errors import ExportError
from compressor.formats import Job
from compressor.runtimes import environments
from compressor.runtimes.forward import open_forward
from compressor.runtimes.runtime_file import open_file
from compressor.testing import RandomTask, normal
from exporters.onnx import Options, export
from tests.nets import Scores

pytestmark = [
    pytest.mark.web,
    pytest.mark.skipif(environments.locate("web") is None, reason="needs `compressor runtimes install web`"),
]


@pytest.fixture(scope="module")
def tagger():
    torch.manual_seed(0)
    return Scores(5, 16, 3).eval()


@pytest.fixture(scope="module")
def task(tagger):
    timed = {0: "batch", 1: "time"}
    return RandomTask({"x": timed}, {"y": timed}, normal(5), tagger)


def exported(tagger, task, folder, **options):
    chosen = Options(**options)
    return export(Job(tagger, task, folder / "model.onnx", chosen))


@pytest.fixture(scope="module")
def checked(tagger, task, tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    return folder, exported(tagger, task, folder, check_in=["web"], stream=True)


def test_a_file_and_its_step_file_are_compared_and_timed_in_the_browser(checked):
    _, artifact = checked
    for one in (artifact, artifact.step):
        (check,) = one.checks
        assert check.runtime.startswith("ONNX Runtime Web 1.30.0 (WebAssembly) in Chrome/")
        assert check.parity.passed
        assert [timed.threads for timed in check.latencies] == [1, 4]
        assert all(0 < timed.p10 <= timed.p50 <= timed.p90 for timed in check.latencies)
    assert [one.checks[0].latencies[0].length for one in (artifact, artifact.step)] == [11, 1]


@pytest.mark.slow
def test_files_are_compared_and_timed_on_webgpu_too(tagger, task, tmp_path):
    artifact = exported(tagger, task, tmp_path, check_in=["webgpu"], stream=True)
    for one in (artifact, artifact.step):
        (check,) = one.checks
        assert re.match(r"ONNX Runtime Web 1.30.0 \(WebGPU on \w.*\) in Chrome/", check.runtime)
        assert check.parity.passed
        assert [timed.threads for timed in check.latencies] == [1]


@pytest.mark.parametrize("options", [{"precision": "int8"}, {"precision": "int4"}, {"precision": "float16"}], ids=str)
def test_rounded_files_give_there_what_they_give_in_onnx_runtime(tagger, task, tmp_path, options):
    exported(tagger, task, tmp_path, **options)
    x = torch.randn(3, 17, 5)
    with closing(open_forward(tmp_path / "model.onnx", task)) as here:
        expected = here(x)
    with closing(open_forward(tmp_path / "model.onnx", task, runtime="web")) as there:
        torch.testing.assert_close(there(x), expected, atol=2e-3 if "16" in options["precision"] else 1e-5, rtol=0)


TYPES = {"float32": 1, "int64": 7, "int32": 6, "int8": 3, "uint8": 2, "bool": 9, "float64": 11, "float16": 10}


def test_every_type_of_numbers_goes_there_and_back(write):
    names = {name: ["batch", 3] for name in TYPES}
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name in TYPES]
    path = write(nodes, names, {f"{name}_out": shape for name, shape in names.items()},
                 types={name + end: number for name, number in TYPES.items() for end in ("", "_out")})  # fmt: skip
    feed = {name: np.array([[1, 0, 1], [0, 0, 1]]).astype(name) for name in TYPES}
    with closing(open_file(path, 4, runtime="web")) as there:
        for given, taken in zip(there.run(feed), feed.values(), strict=True):
            np.testing.assert_array_equal(given, taken, strict=True)
        there.reload()
        assert len(there.burst(feed, runs=7, warmup=1)) == 7


def test_a_file_that_the_runtime_cannot_load_is_an_error_with_its_words(linear):
    path = linear
    with closing(open_file(path, runtime="web")) as there:
        path.write_bytes(b"no model")
        with pytest.raises(ExportError, match=f"{path.name} in ONNX Runtime Web failed") as caught:
            there.reload()
    assert "damaged" in caught.value.hint


def test_a_shape_that_the_file_does_not_take_is_an_error(linear):
    with (
        closing(open_file(linear, runtime="web")) as there,
        pytest.raises(ExportError, match="in ONNX Runtime Web failed") as caught,
    ):
        there.run({"x": np.zeros((2, 4), np.float32)})
    assert "an axis may be fixed" in caught.value.hint


def test_a_browser_leaves_nothing_behind(linear, monkeypatch):
    with tempfile.TemporaryDirectory() as folder:  # a short path: the browser's sockets lie there
        monkeypatch.setattr(tempfile, "tempdir", folder)
        with closing(open_file(linear, runtime="web")) as there:
            there.run({"x": np.zeros((2, 5), np.float32)})
            assert list(Path(folder).iterdir())
        assert list(Path(folder).iterdir()) == []
