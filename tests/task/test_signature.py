"""Any call of any `forward` as flat tensors, and back."""

from __future__ import annotations

import copy
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compressor.errors import TaskError
from compressor.task.signature import Call, Signature, as_call, flatten_calls

Pair = namedtuple("Pair", ["scores", "state"])


@dataclass
class Output:
    logits: torch.Tensor
    state: tuple
    hidden: torch.Tensor | None = None


class Rich(nn.Module):
    """Nested states, a keyword-only mask, an option, a dataclass out."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(3, 5, batch_first=True)

    def forward(self, x, state=None, scale=1.0, *, mask=None):
        y, state = self.rnn(x, state)
        return Output(y * scale if mask is None else y * scale * mask, state)


def signature_of(model, call):
    signature = Signature.of_call(model.forward, call)
    with torch.no_grad():
        return signature.with_results(model(*call.args, **call.kwargs))


def rich_call(batch=2, length=7):
    state = (torch.randn(1, batch, 5), torch.randn(1, batch, 5))
    return Call(torch.randn(batch, length, 3), state, scale=2.0, mask=torch.ones(batch, length, 1))


def test_names_come_from_the_structure():
    signature = signature_of(Rich(), rich_call())
    assert signature.input_names == ("x", "state.0", "state.1", "mask")
    assert signature.output_names == ("logits", "state.0", "state.1")


def test_a_flattened_model_takes_and_gives_tensors_and_the_structure_comes_back():
    model, call = Rich().eval(), rich_call(3, 11)
    expected = model(*call.args, **call.kwargs)
    signature = signature_of(model, rich_call())
    flat = flatten_calls(model, signature)(*signature.flatten(call))
    assert all(isinstance(part, torch.Tensor) for part in flat)
    back = signature.results(flat)
    assert isinstance(back, Output)
    assert torch.equal(back.logits, expected.logits)
    assert torch.equal(back.state[1], expected.state[1])
    assert back.hidden is None


def test_a_copy_of_a_flattened_model_calls_itself():
    model = Rich()
    signature = signature_of(model, rich_call())
    other = copy.deepcopy(flatten_calls(model, signature))
    with torch.no_grad():
        other.rnn.weight_hh_l0.zero_()
    inputs = signature.flatten(rich_call())
    assert not torch.equal(model(*inputs)[0], other(*inputs)[0])
    assert type(other) is Rich
    assert list(other.state_dict()) == list(Rich().state_dict())


def test_arguments_may_be_given_by_place_or_by_name():
    signature, call = signature_of(Rich(), rich_call()), rich_call()
    named = Call(mask=call.kwargs["mask"], scale=2.0, state=call.args[1], x=call.args[0])
    assert all(torch.equal(*pair) for pair in zip(signature.flatten(call), signature.flatten(named), strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda call: call.kwargs.update(scale=3.0), "an argument is 3.0 and was 2.0"),
        (lambda call: call.kwargs.pop("mask"), "it does not hand over `mask`, which `example` does"),
        (lambda call: call.kwargs.update(other=1), "unexpected keyword argument 'other'"),
    ],
)
def test_another_kind_of_call_is_refused_with_the_difference(change, message):
    signature, call = signature_of(Rich(), rich_call()), rich_call()
    change(call)
    with pytest.raises(TaskError, match=message):
        signature.flatten(call)


def test_a_class_that_nobody_knows_is_named():
    with pytest.raises(TaskError, match=r"argument `x.0` is a set"):
        Signature.of_call(lambda x: x, Call([{1}]))


@pytest.mark.parametrize(
    ("forward", "call", "flat"),
    [
        (lambda x: x, Call(torch.ones(2)), True),
        (lambda x, h=None: (x, x), Call(torch.ones(2)), True),
        (lambda x, mask=None, h=None: x, Call(torch.ones(2), h=torch.ones(2)), False),
        (lambda x, scale=1: x, Call(torch.ones(2), 3), False),
        (lambda x: {"y": x}, Call(torch.ones(2)), False),
        (lambda x: [x], Call(torch.ones(2)), False),
        (lambda x: Pair(x, x), Call(torch.ones(2)), False),
        (lambda *, x: x, Call(x=torch.ones(2)), False),
        (lambda *xs: xs, Call(torch.ones(2), torch.ones(2)), False),
    ],
)
def test_a_model_that_is_flat_already_is_told_from_one_that_is_not(forward, call, flat):
    model = nn.Module()
    model.forward = forward
    assert signature_of(model, call).is_flat is flat


def test_inputs_of_a_task_stand_for_calls():
    x = torch.ones(2)
    assert as_call(x).args == (x,)
    assert as_call([x, None]).args == (x, None)
    assert as_call({"x": x}).kwargs == {"x": x}
    assert as_call(({"x": x},)).args == ({"x": x},)
    assert as_call(Pair(x, x)).args == (Pair(x, x),)


def test_arrays_count_as_tensors():
    signature = Signature.of_call(lambda x: x, Call(np.ones((2, 3), np.float32)))
    assert signature.flatten(Call(np.zeros((5, 3), np.float32)))[0].shape == (5, 3)


@pytest.mark.filterwarnings("ignore:The tensor attribute")
def test_it_exports_under_its_own_names():
    model = Rich().eval()
    signature = signature_of(model, rich_call())
    flatten_calls(model, signature)
    program = torch.export.export(model, signature.flatten(rich_call()), strict=False)
    assert list(program.graph_signature.user_inputs) == ["x", "state_0", "state_1", "mask"]


def structures():
    leaf = st.sampled_from(["tensor", None, 3, "text", True])
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.tuples(inner, inner),
            st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
            st.builds(Pair, inner, inner),
            st.builds(lambda a, b: Output(a, (b,)), inner, inner),
            st.dictionaries(st.sampled_from("abc"), inner, max_size=2).map(OrderedDict),
        ),
        max_leaves=7,
    )


def filled(structure):
    if structure == "tensor":
        return torch.rand(2)
    if isinstance(structure, dict):
        return type(structure)((name, filled(part)) for name, part in structure.items())
    if isinstance(structure, Output):
        return Output(filled(structure.logits), filled(structure.state))
    if isinstance(structure, Pair):
        return Pair(*map(filled, structure))
    return type(structure)(map(filled, structure)) if isinstance(structure, (list, tuple)) else structure


def same(first, second):
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return type(first) is type(second) and all(same(first[name], second[name]) for name in {**first, **second})
    if isinstance(first, Output):
        return same((first.logits, first.state), (second.logits, second.state))
    if isinstance(first, (list, tuple)):
        return type(first) is type(second) and len(first) == len(second) and all(map(same, first, second))
    return type(first) is type(second) and first == second


def test_what_was_left_at_its_default_is_not_handed_over():
    def forward(x, mask=None, *, cache=True):
        return x

    def told(*args, **kwargs):
        return len(args), kwargs

    call = Signature.of_call(forward, Call(torch.ones(1), cache=False)).call([torch.ones(1)])
    assert told(*call.args, **call.kwargs) == (1, {"cache": False})
    by_place = Signature.of_call(lambda x, scale=1.0, mask=None: x, Call(torch.ones(1), 1.0, torch.ones(1)))
    call = by_place.call([torch.ones(1)] * 2)
    assert (len(call.args), list(call.kwargs)) == (1, ["mask"])


@given(structures(), structures())
def test_any_structure_goes_through_and_comes_back(argument, result):
    argument, result = filled(argument), filled((torch.ones(1), result))
    signature = Signature.of_call(lambda x, *, y=None: 0, Call(1, y=argument)).with_results(result)
    tensors = signature.flatten(Call(1, y=argument))
    assert len(set(signature.input_names)) == len(tensors)
    call = signature.call(tensors)
    assert same(call.kwargs.get("y"), argument)
    assert same(signature.results(signature.flat_results(result)), result)
