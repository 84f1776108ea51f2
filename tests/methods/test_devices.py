"""Every method and score on an accelerator gives what it gives on the CPU, and nothing leaves the device."""

import copy
from functools import cache

import pytest
import torch

from compressor.errors import CompressorError
from compressor.methods import METHODS
from compressor.methods.base import State
from compressor.methods.placing import carried_out
from compressor.methods.retrain import Retrain
from compressor.methods.scoring import UNIT_SCORES
from compressor.methods.sparsify import STRENGTHS
from tests.methods import test_automaton, test_pairs
from tests.methods.conftest import CHANNELS, make_context
from tests.tolerances import SAME_ON_ANY_DEVICE, SAME_OUTPUTS_ON_ANY_DEVICE

STEPS = {
    **test_pairs.STEPS,
    **{f"by {score}": METHODS["magnitude"](prune="units", ratio=0.5, score=score) for score in UNIT_SCORES},
    **{
        f"{penalty} penalty": METHODS["sparsify"](penalty=penalty, ratio=0.5, retrain=Retrain(epochs=2))
        for penalty in STRENGTHS
        if penalty != "norm_scale"
    },
    "rounds": METHODS["magnitude"](
        prune="weights",
        sparsity=0.5,
        schedule="cubic",
        rounds=2,
        retrain=Retrain(distill=True, distill_hidden=("head",)),
    ),
}
CASES = [(model, step) for model in test_pairs.MODELS for step in STEPS]


def carry_out(model, step, device):
    """The result of a step with the model on a device, or the refusal."""
    original = test_pairs.fresh(model).to(device)
    context = make_context(original, test_pairs.Task(), device=device, quick=True)
    torch.manual_seed(0)
    try:
        STEPS[step].check_task(original, context.task)
        return carried_out(STEPS[step], State(original), context)
    except CompressorError as error:
        return error.message


@cache
def on_cpu(model, step):
    return carry_out(model, step, "cpu")


def check_same(result, expected, device, step):
    """The same refusal, or the same model, masks, structure and facts, all on the device."""
    if isinstance(expected, str):
        assert result == expected
        return
    tensors, masks = result.state.model.state_dict(), result.state.masks
    assert {tensor.device.type for tensor in (*tensors.values(), *masks.values())} == {device.type}
    assert result.state.structure == expected.state.structure
    assert [change.name for change in result.changes] == [change.name for change in expected.changes]
    assert masks.keys() == expected.state.masks.keys()
    assert all(mask.cpu().equal(expected.state.masks[name]) for name, mask in masks.items())
    x = torch.randn(31, 9, CHANNELS, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        given, wanted = result.state.model.eval()(x.to(device)).cpu(), expected.state.model.eval()(x)
    torch.testing.assert_close(given, wanted, **SAME_OUTPUTS_ON_ANY_DEVICE)
    assert result.facts == pytest.approx(expected.facts, rel=2e-2, abs=1e-3, nan_ok=True)
    if not isinstance(step, METHODS["convert"]):  # whose layers are fitted by many steps along a flat valley
        for name, weight in expected.state.model.state_dict().items():
            torch.testing.assert_close(tensors[name].cpu(), weight, **SAME_ON_ANY_DEVICE)


@pytest.mark.parametrize(("model", "step"), CASES)
def test_a_step_gives_on_an_accelerator_what_it_gives_on_the_cpu(model, step, accelerator):
    check_same(carry_out(model, step, accelerator), on_cpu(model, step), accelerator, STEPS[step])


@pytest.mark.parametrize(("model", "step"), CASES)
def test_a_step_that_needs_float64_is_carried_out_on_the_cpu_if_the_device_has_none(model, step, without_float64):
    result = carry_out(model, step, without_float64)
    check_same(result, on_cpu(model, step), without_float64, STEPS[step])
    if not isinstance(result, str):
        told = "carried out on the CPU: `pretend` has no float64" in result.notes
        assert told == STEPS[step].needs_float64


def test_every_method_is_in_the_matrix_but_the_one_that_reads_symbols():
    assert {type(step) for step in STEPS.values()} == set(METHODS.values()) - test_pairs.ALONE


def automaton_on(device):
    model = copy.deepcopy(test_automaton.trained(1)).to(device)
    task = test_automaton.Words(1, model)
    step = METHODS["automaton"](max_clusters=16)
    step.check_task(model, task)
    return carried_out(step, State(model), make_context(model, task, device=device)).state.model


def test_an_automaton_of_a_model_on_an_accelerator_is_that_of_the_cpu(accelerator):
    expected, table = automaton_on("cpu").state_dict(), automaton_on(accelerator)
    symbols = torch.randint(2, (5, 40), generator=torch.Generator().manual_seed(0))
    assert table(symbols.to(accelerator)).device.type == accelerator.type
    assert {tensor.device.type for tensor in table.state_dict().values()} == {accelerator.type}
    assert all(tensor.cpu().equal(expected[name]) for name, tensor in table.state_dict().items())
