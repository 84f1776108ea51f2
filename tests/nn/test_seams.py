"""A mark of a module: it is found again, goes with copies, and cuts states however they are handed over."""

import copy

import pytest
import torch
from torch import nn

from compressor.nn.seams import changed_call, mark, marked, seam_of, tensors_of_call, unmark
from compressor.nn.structure import replace_module
from compressor.surgery.trace.edges import Cut, Edges

WIDE, KEPT = 5, (0, 2, 3)
CUT = Edges((Cut(1, 1, WIDE, KEPT),))


class Step(nn.Module):
    def forward(self, x, states=None, *, scale=2.0):
        return x, states["h"], scale


@pytest.fixture
def model():
    found = nn.ModuleDict({"step": Step(), "other": Step()})
    mark(found["step"]).cuts += (CUT,)
    return found


def test_a_mark_is_found_kept_by_copies_and_taken_off(model):
    copied = copy.deepcopy(model)
    assert list(marked(copied)) == ["step"]
    assert mark(model["step"]) is seam_of(model["step"])
    assert seam_of(copied["step"]) is not seam_of(model["step"])
    unmark(copied["step"])
    assert not marked(copied)
    assert list(marked(model)) == ["step"]


def test_a_wide_state_inside_a_structure_is_cut_and_a_narrow_one_is_not(model):
    x, h = torch.randn(7, 3), torch.randn(7, WIDE)
    for call in (lambda state: model["step"](x, {"h": state}), lambda state: model["step"](x=x, states={"h": state})):
        _, got, scale = call(h)
        assert torch.equal(got, h[:, KEPT])
        assert scale == 2.0
        assert torch.equal(call(h[:, :3])[1], h[:, :3])


def test_tensors_come_in_the_order_of_the_parameters():
    x, h = torch.zeros(1), torch.ones(1)
    assert [float(part) for part in tensors_of_call(Step(), (), {"states": {"h": h}, "x": x})] == [0.0, 1.0]
    args, kwargs = changed_call(Step(), (x,), {"scale": 3.0}, lambda parts: tuple(part + 1 for part in parts))
    assert (float(args[0]), kwargs) == (1.0, {"scale": 3.0})


def test_what_replaces_a_marked_module_has_its_mark(model):
    replace_module(model, "step", Step())
    assert seam_of(model["step"]).cuts == (CUT,)
