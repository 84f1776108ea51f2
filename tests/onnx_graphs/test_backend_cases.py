"""The node tests of the onnx package, of RNN, GRU, LSTM and Attention: `--fix` gives what they expect, or a reason."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.backend.test.case.node as cases
import onnxruntime
from onnx import numpy_helper

from compressor.onnx_graphs import targets
from compressor.onnx_graphs.remedies import fix

for _module in ("attention", "gru", "lstm", "rnn"):  # each adds its cases to a list when it is imported
    __import__(f"{cases.__name__}.{_module}")
OPERATORS = ("RNN", "GRU", "LSTM", "Attention")
CASES = {
    case.name: case
    for case in cases._NodeTestCases
    if len(case.model.graph.node) == 1 and case.model.graph.node[0].op_type in OPERATORS
}
WEIGHTS = {"W", "R", "B", "P"}
REPLACED = 26
"""As many are replaced; not caches, windows, causal masks, caps, grouped heads, peepholes, layouts, float16."""


def outcome(case):
    """The largest difference from the expected outputs, or why the node was not replaced."""
    proto = onnx.ModelProto()
    proto.CopyFrom(case.model)
    values, expected = case.data_sets[0]
    feed = dict(zip([value.name for value in proto.graph.input], values, strict=True))
    for name in WEIGHTS & set(feed):
        proto.graph.initializer.append(numpy_helper.from_array(feed.pop(name), name))
    inputs = [value for value in proto.graph.input if value.name in feed]
    del proto.graph.input[:]
    proto.graph.input.extend(inputs)
    operator = proto.graph.node[0].op_type
    result = fix(proto, targets.get("mnn" if operator == "Attention" else "nnapi"), {})
    reasons = [remedy.why_not for remedy in result.remedies if remedy.why_not.startswith(f"{operator}: ")]
    if reasons:
        return reasons[0]
    assert operator not in {node.op_type for node in result.proto.graph.node}
    session = onnxruntime.InferenceSession(result.proto.SerializeToString())
    pairs = zip(session.run(None, feed), expected, strict=True)
    return max(float(np.abs(actual - wanted).max()) for actual, wanted in pairs)


def test_every_case_gives_the_expected_numbers_or_a_reason():
    outcomes = {name: outcome(case) for name, case in CASES.items()}
    wrong = {name: error for name, error in outcomes.items() if not isinstance(error, str) and not error < 1e-6}
    assert not wrong
    refused = {name for name, result in outcomes.items() if isinstance(result, str)}
    assert len(outcomes) - len(refused) >= REPLACED
    assert {"test_lstm_with_peepholes", "test_attention_bidirectional_window", "test_attention_4d_fp16"} <= refused
