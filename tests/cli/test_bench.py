"""`bench`: made-up inputs, the table and the facts."""

import json

import onnx
import pytest
import torch

from compressor.cli.bench import made_up
from compressor.errors import UsageError
from compressor.report import TensorInfo
from tests.cli.conftest import call

FEW = ("--rounds", "8", "--runs", "1")


def info(name, dtype, *shape):
    return TensorInfo(name=name, dtype=dtype, shape=shape)


def test_a_float_input_is_normal_at_the_batch_and_length():
    tensor = made_up(info("features", "float32", "batch", "time", 13), batch=3, length=5)
    assert (tuple(tensor.shape), tensor.dtype) == ((3, 5, 13), torch.float32)
    assert 0.5 < tensor.std().item() < 1.5


def test_the_batch_axis_is_found_by_its_name():
    assert made_up(info("x", "float32", "time", "batch", 7), batch=3, length=5).shape == (5, 3, 7)
    assert made_up(info("x", "float16", "s0", "s1"), batch=3, length=5).shape == (3, 5)


def test_lengths_are_the_length_and_other_integers_zero():
    assert made_up(info("lengths", "int64", "batch"), batch=2, length=5).tolist() == [5, 5]
    assert made_up(info("tokens", "int32", "batch", "time"), batch=1, length=3).tolist() == [[0, 0, 0]]
    assert made_up(info("mask", "bool", "batch"), batch=2, length=3).tolist() == [True, True]


def test_an_input_of_another_type_needs_a_task():
    with pytest.raises(UsageError) as caught:
        made_up(info("words", "tensor(string)", "batch"), batch=1, length=1)
    assert caught.value.render() == (
        "error: no input can be made up for `words` of type tensor(string)\nhint: give --task"
    )


def test_the_first_file_is_the_baseline_of_the_others(finished):
    out = finished[0]
    result = call("bench", out / "original.onnx", out / "model.onnx", *FEW)
    first, second = result.out.splitlines()[2:]
    assert " baseline " in first
    assert "x (" in second
    assert all("ONNX Runtime 1" in line for line in (first, second))
    assert result.err.startswith("batch 1, length 32, threads 1, ")


def test_the_facts_come_as_json_at_the_tasks_length(finished, files):
    out = finished[0]
    result = call("bench", out / "original.onnx", out / "model.onnx", "--task", files / "task.py", "--json", *FEW)
    first, second = json.loads(result.out)
    assert (first["speedup"], first["latency"]["length"]) == (None, 7)
    assert first["bytes"] > second["bytes"]
    assert second["speedup"]["interval"]["low"] <= second["speedup"]["ratio"] <= second["speedup"]["interval"]["high"]


def test_weights_in_a_file_of_their_own_are_counted(finished, tmp_path):
    whole = finished[0] / "original.onnx"
    split = tmp_path / "split.onnx"
    onnx.save_model(onnx.load(whole), split, save_as_external_data=True, location="split.data", size_threshold=100)
    result = call("bench", whole, split, "--json", *FEW)
    first, second = json.loads(result.out)
    assert split.stat().st_size < first["bytes"] / 2
    assert second["bytes"] == split.stat().st_size + (tmp_path / "split.data").stat().st_size


def test_a_missing_file():
    result = call("bench", "nowhere.onnx")
    assert (result.code, result.err) == (
        2,
        "error: there is no file `nowhere.onnx`\nhint: give exported files, such as model.onnx or model.mnn\n",
    )


def test_a_file_that_is_no_model(tmp_path):
    (tmp_path / "text.onnx").write_text("hello")
    result = call("bench", tmp_path / "text.onnx")
    assert result.code == 2
    assert result.err.startswith(f"error: {tmp_path}/text.onnx is not an ONNX file, or is cut off\nhint: ")
