"""Atoms against sets that are joined one by one, and labels against loops over their elements."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.surgery.trace.atoms import Atoms
from compressor.surgery.trace.constants import Constants
from compressor.surgery.trace.labels import filled, mixes, varies
from compressor.surgery.trace.tables import decoded

places = st.integers(0, 12)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.tuples(places, places), max_size=15), st.sets(st.integers(1, 12), max_size=3), st.booleans())
def test_joined_atoms_are_one_group_named_by_its_lowest_atom_that_is_no_constant(pairs, constants, at_once):
    atoms = Atoms()
    for atom in range(1, 13):
        assert (atoms.new_constants(1) if atom in constants else atoms.new(1)).tolist() == [atom]
    assert atoms.count == 13
    left, right = (np.array(side, np.int64) for side in (zip(*pairs, strict=True) if pairs else ((), ())))
    for one, two in [(left, right)] if at_once else zip(left, right, strict=True):
        atoms.join(np.asarray(one), np.asarray(two))
    groups = [{atom} for atom in range(1, 13)]
    for one, two in pairs:
        if one and two:
            first, second = (next(group for group in groups if atom in group) for atom in (one, two))
            if first is not second:
                groups.remove(second)
                first |= second
    for group in groups:
        root = min(group - constants or group)
        assert atoms.roots(np.array(sorted(group))).tolist() == [root] * len(group)
    assert atoms.roots(np.array([0])).tolist() == [0]


def test_arrays_are_joined_element_by_element_as_they_broadcast():
    atoms = Atoms()
    table = atoms.new(6).reshape(2, 3)
    atoms.join(table, table[:1])
    assert atoms.roots(table).tolist() == [[1, 2, 3], [1, 2, 3]]


def test_a_group_stays_for_the_first_reason_of_any_of_its_atoms():
    atoms = Atoms()
    atoms.new(5)
    atoms.pin(np.array([0, 3, 3]), "first")
    atoms.pin(np.array([2, 3]), "second")
    atoms.join(np.array([1]), np.array([3]))
    assert atoms.reasons() == {1: "first", 2: "second"}
    atoms.join(np.array([2]), np.array([1]))
    assert atoms.reasons() == {1: "first"}


@pytest.mark.parametrize("order", [*itertools.permutations(("read", "in", "out"))])
def test_an_axis_keeps_its_atoms_and_its_strongest_role(order):
    atoms = Atoms()
    given = [atoms.axis("w", 1, 4, role).tolist() for role in order]
    assert given == [[1, 2, 3, 4]] * 3
    assert atoms.roles == {("w", 1): "out"}
    assert atoms.axis("w", 0, 2, "read").tolist() == [5, 6]
    atoms.axis("w", 0, 2, "in")
    atoms.axis("w", 0, 2, "read")
    assert atoms.roles["w", 0] == "in"


def test_many_new_atoms_are_groups_of_their_own_and_older_ones_stay_joined():
    atoms = Atoms()
    first = atoms.new(3)
    atoms.join(first[:1], first[2:])
    more = atoms.new(1000)
    assert atoms.roots(first).tolist() == [1, 2, 1]
    assert atoms.roots(more).tolist() == list(range(4, 1004))


labels = st.lists(st.integers(0, 3), min_size=12, max_size=12).map(lambda drawn: torch.tensor(drawn).view(2, 3, 2))


@settings(deadline=None)
@given(labels, st.integers(-3, 2))
def test_labels_vary_mix_and_are_filled_as_in_loops(drawn, axis):
    rows = drawn.movedim(axis, -1).flatten(0, 1).tolist()
    assert varies(drawn, axis) == any(len(set(row)) > 1 for row in rows)
    assert mixes(drawn, axis) == any(len(set(row) - {0}) > 1 for row in rows)
    found = filled(drawn, [axis]).movedim(axis, -1).flatten(0, 1).tolist()
    assert found == [[value or max(row) for value in row] for row in rows]
    assert torch.equal(filled(drawn, []), drawn)


def test_one_element_along_an_axis_varies_not():
    assert not varies(torch.tensor([[1, 2, 3]]), 0)
    assert varies(torch.tensor([[1, 2, 3]]), 1)


SHAPE = (3, 4, 5)
VIEWS = {
    "itself": lambda x: x,
    "a slice": lambda x: x[1:, :, 2:],
    "every second": lambda x: x[:, ::2],
    "an element": lambda x: x[1],
    "turned": lambda x: x.permute(2, 0, 1),
    "expanded": lambda x: x[:, None].expand(-1, 7, -1, -1),
    "of a slice": lambda x: x[1:3, 1:, 3].t(),
    "the last two": lambda x: x[:, 1, 2:4].unsqueeze(1),
    "one of one": lambda x: x[1:2, :, 4:],
}


@pytest.mark.parametrize("name", VIEWS)
def test_each_axis_of_a_view_is_told_with_its_positions_in_the_base(name):
    base = torch.arange(60).view(SHAPE)
    view = VIEWS[name](base)
    found = decoded(view, base)
    assert len(found) == view.dim()
    for axis, selection in enumerate(found):
        others = view.movedim(axis, 0).reshape(view.size(axis), -1)[:, 0].tolist()
        assert (selection is None) == (len(set(others)) == 1)
        if selection is not None:
            assert [int(np.unravel_index(place, SHAPE)[selection[0]]) for place in others] == selection[1].tolist()


@pytest.mark.parametrize(
    ("view", "positions"),
    [
        (lambda x: x.view(3, 20), [*range(5)] * 4),
        (lambda x: x.view(12, 5), [*range(4)] * 3),
        (lambda x: x[1:].view(8, 5), [*range(4)] * 2),
    ],
)
def test_of_two_axes_as_one_the_second_ones_positions_are_told_over_and_over(view, positions):
    base = torch.arange(60).view(SHAPE)
    found = decoded(view(base), base)
    merged = next(selection for selection in found if selection is not None and len(selection[1]) == len(positions))
    assert merged[1].tolist() == positions


def test_what_is_no_selection_of_positions_is_told():
    base = torch.arange(60).view(SHAPE)
    assert decoded(base.diagonal(dim1=1, dim2=2), base) is None
    assert decoded(base.as_strided((2, 3), (1, 7)), base) is None
    assert decoded(base, base.permute(1, 0, 2)) is None
    whole = torch.arange(120)
    assert decoded(whole[:60].view(SHAPE), whole[60:].view(SHAPE)) is None


def test_a_constant_holds_one_number_along_all_axes_and_arithmetic_keeps_that_along_some():
    constants = Constants()
    zeros, rows, row = torch.zeros(2, 1, 3), torch.randn(2, 4, 3), torch.randn(3)
    constants.note([zeros], whole=True)
    assert zeros in constants
    assert rows not in constants
    assert constants.along(zeros) == {0, 2}
    assert constants.along(rows) == set()
    assert constants.is_zero(zeros)
    total = zeros + row
    even = constants.even_axes([zeros, row], total)
    assert even == {0}
    constants.note([total], whole=False, even=even)
    assert constants.along(total) == {0}
    assert constants.along(total.transpose(0, 2)) == {2}
    assert constants.along(total[:, :, 0]) == {0}
    assert not constants.is_zero(total)
    assert total not in constants


def test_a_storage_that_is_written_again_is_forgotten():
    constants, zeros = Constants(), torch.zeros(2, 3)
    constants.note([zeros], whole=True)
    zeros.add_(torch.randn(2, 3))
    constants.note([zeros], whole=False)
    assert zeros not in constants
    assert constants.along(zeros) == set()
    assert not constants.is_zero(zeros)
    ones = torch.ones(2, 3)
    constants.note([ones], whole=True)
    assert not constants.is_zero(ones)


@pytest.mark.parametrize(
    ("shapes", "even"),
    [(((2, 4),), set()), (((1, 4),), {0}), (((4,),), {0}), (((1, 1),), {0, 1}), (((1, 4), (2, 1)), set())],
)
def test_a_function_is_even_along_axes_that_nothing_it_takes_fills(shapes, even):
    tensors = [torch.randn(shape) for shape in shapes]
    output = torch.empty(2, 4)
    assert Constants().even_axes(tensors, output) == even
    assert Constants().even_axes([tensor.expand(2, 4) for tensor in tensors], output) == even
    assert Constants().even_axes(tensors, torch.empty(3, 4)[:2]) == set()
    assert Constants().even_axes(tensors, torch.empty(4, 2).t()) == set()
