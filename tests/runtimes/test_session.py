"""Sessions of ONNX Runtime: options that measurements rely on."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import helper

from compressor.runtimes.session import PROVIDER, first_line, open_session
from tests.onnx_graphs.graphs import model


def test_a_session_has_one_cpu_provider_and_threads_that_sleep(linear):
    options = open_session(linear, threads=3).get_session_options()
    assert options.intra_op_num_threads == 3
    assert options.inter_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_a_file_and_its_content_give_the_same(linear):
    feed = {"x": torch.ones(2, 5).numpy()}
    of_file, of_content = open_session(linear), open_session(linear.read_bytes())
    assert of_file.get_providers() == [PROVIDER]
    np.testing.assert_array_equal(of_file.run(None, feed)[0], of_content.run(None, feed)[0])


def test_the_optimized_graph_is_written(linear, tmp_path):
    open_session(linear, optimization="basic", optimized=tmp_path / "optimized.onnx")
    assert onnx.load(tmp_path / "optimized.onnx").graph.node


def test_an_error_is_told_in_one_line():
    assert first_line(ValueError("\nno kernel\nat node 3")) == "no kernel"


@pytest.mark.parametrize(("fold", "operators"), [(True, ["Add"]), (False, ["Exp", "Add"])])
def test_constants_are_computed_at_load_unless_that_is_switched_off(tmp_path, fold, operators):
    nodes = [helper.make_node("Exp", ["w"], ["e"]), helper.make_node("Add", ["x", "e"], ["y"])]
    proto = model(nodes, {"x": [3]}, {"y": 1}, {"w": np.arange(3, dtype=np.float32)})
    path = tmp_path / "optimized.onnx"
    session = open_session(proto.SerializeToString(), fold=fold, optimized=path)
    assert [node.op_type for node in onnx.load(path).graph.node] == operators
    np.testing.assert_allclose(session.run(None, {"x": np.zeros(3, np.float32)})[0], np.exp([0, 1, 2]), rtol=1e-6)
