"""Sessions of ONNX Runtime: options that measurements rely on."""

from __future__ import annotations

import numpy as np
import onnx
import torch

from compressor.runtimes.session import PROVIDER, first_line, open_session


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
