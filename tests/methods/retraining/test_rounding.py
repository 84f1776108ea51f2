from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from compressor.errors import MethodError
from compressor.methods.retrain import Retrain
from compressor.nn.integers import rows_to_nearest
from compressor.surgery.second_order.by_name import rounded_by_name
from compressor.training.rounding import BLOCK, rounded

MATRICES = [f"rnn.weight_{kind}_l{layer}" for layer in range(2) for kind in ("ih", "hh")] + ["head.weight"]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_rounding_in_training_ends_with_rounded_weights_that_learnt_the_task(state, context, precision):
    result = Retrain(epochs=8, lr=0.03, quantize=precision).apply(state, context)
    assert result.history[-1]["metric"] > 0.85
    weight = result.state.model.rnn.weight_hh_l0.detach()
    torch.testing.assert_close(rounded(weight, precision), weight, atol=0, rtol=1e-3)
    assert "left rounded" in result.notes[-1]


def test_learned_steps_end_with_weights_that_the_exporter_leaves_as_they_are(state, context):
    result = Retrain(epochs=8, lr=0.03, quantize="int4", learn_steps=True, keep_best=True).apply(state, context)
    assert max(row["metric"] for row in result.history) > 0.85
    weight = result.state.model.rnn.weight_hh_l0.detach().numpy()
    assert (rows_to_nearest(weight, 4, BLOCK).weight.astype("float32") == weight).all()
    with pytest.raises(ValidationError, match="`learn_steps` has no effect without `quantize"):
        Retrain(learn_steps=True)


def learned(**options):
    return Retrain(**({"epochs": 2, "lr": 0.03, "quantize": "int4", "learn_steps": True} | options))


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"quantize": "mixed", "bits": 5.0}])
def test_learned_steps_start_from_the_second_order_rounding(state, context, options):
    kept = learned(lr=1e-12, **options).apply(state, context)
    bits = {name: 8 if options.get("quantize") == "int8" else 4 for name in MATRICES}
    if "bits" in options:
        [note] = [note for note in kept.notes if note.startswith("bits: ")]
        bits = {name: int(count) for name, count in (item.split() for item in note[6:].split(", "))}
    inputs = [inputs for inputs, _ in context.first_batches(16)]
    rows = rounded_by_name(state.model, inputs, {name: (count,) for name, count in bits.items()}, BLOCK)
    assert list(bits) == MATRICES
    assert rows
    for (name, _), wanted in rows.items():
        # exp(p) of a step that was trained at this rate is 1 to the last bit
        assert torch.equal(kept.state.model.get_parameter(name), torch.from_numpy(wanted.weight).float()), name


def test_the_nearest_rounding_is_another_start(state, context):
    second, nearest = (
        learned(lr=1e-12, start=start).apply(state, context).state.model.rnn.weight_hh_l0
        for start in ("second_order", "nearest")
    )
    assert not torch.equal(second, nearest)


def test_mixed_bits_learn_the_task_and_stay_integers_of_the_chosen_bits(state, context):
    result = learned(epochs=8, quantize="mixed", bits=6.0, average_last=0.5, keep_best=True).apply(state, context)
    assert max(row["metric"] for row in result.history) > 0.9
    [note] = [note for note in result.notes if note.startswith("bits: ")]
    for name, count in (item.split() for item in note[6:].split(", ")):
        weight, bits = result.state.model.get_parameter(name).detach().numpy(), int(count)
        if bits < 16:
            rows = rows_to_nearest(weight, bits, weight.shape[1] if bits == 8 else BLOCK)
            assert np.array_equal(rows.weight.astype(np.float32), weight), name


def test_rounding_in_training_leaves_exact_what_it_is_told_to(state, context):
    result = Retrain(epochs=1, lr=0.03, quantize="int4", keep_float=["rnn.weight_*_l0"]).apply(state, context)
    for name, is_rounded in {"weight_ih_l0": False, "weight_hh_l0": False, "weight_hh_l1": True}.items():
        weight = getattr(result.state.model.rnn, name).detach()
        assert torch.allclose(rounded(weight, "int4"), weight, atol=0, rtol=1e-3) == is_rounded, name


def test_exact_parameters_that_there_are_not_or_that_leave_nothing_to_round_are_refused(state, context):
    for patterns, said in {("lstm.*",): r"'lstm\.\*' fits no matrix", ("*",): "leaves nothing to round"}.items():
        with pytest.raises(MethodError, match=said):
            Retrain(quantize="int8", keep_float=patterns).apply(state, context)
    with pytest.raises(ValidationError, match="no effect without `quantize: int8`"):
        Retrain(keep_float=["rnn.*"])
