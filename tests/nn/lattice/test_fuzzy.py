"""Max-min closures and minima of columns, against loops and against binary relations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import UsageError
from compressor.nn.lattice.bits import Bits, transitive_closure
from compressor.nn.lattice.fuzzy import fuzzy_order, max_min_closure
from compressor.nn.lattice.order import closure_order


def degrees(rows, columns, seed=0, levels=None):
    drawn = torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))
    return drawn if levels is None else (drawn * levels).floor() / (levels - 1)


def naive_closure(matrix):
    """Warshall's three loops with min for "and", max for "or"."""
    closed = matrix.clone().fill_diagonal_(1.0).tolist()
    size = range(len(closed))
    for k in size:
        for i in size:
            for j in size:
                closed[i][j] = max(closed[i][j], min(closed[i][k], closed[k][j]))
    return torch.tensor(closed)


def naive_irreducible(matrix, tolerance):
    """The definition, column by column."""
    columns, result = list(matrix.T), []
    for column in columns:
        meet = torch.ones_like(column)
        for other in columns:
            if bool((column - other <= tolerance).all()) and bool((other - column > tolerance).any()):
                meet = torch.minimum(meet, other)
        result.append(bool(((meet - column).abs() > tolerance).any()))
    return result


def naive_classes(matrix, tolerance):
    """Spread the least index over neighbours that are equal within the tolerance."""
    columns, names = matrix.T, list(range(matrix.size(1)))
    for _ in names:
        for i, j in torch.cartesian_prod(*[torch.arange(len(names))] * 2).tolist():
            if bool(((columns[i] - columns[j]).abs() <= tolerance).all()):
                names[i] = names[j] = min(names[i], names[j])
    ordered = sorted(set(names))
    return [ordered.index(name) for name in names]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 17), st.integers(0, 999), st.sampled_from([None, 2, 5]))
def test_a_closure_is_that_of_the_three_loops(size, seed, levels):
    matrix = degrees(size, size, seed, levels)
    assert max_min_closure(matrix).equal(naive_closure(matrix))


@pytest.mark.parametrize("size", [63, 64, 65, 129])
def test_a_closure_cut_at_any_degree_is_the_closure_of_the_cut(size):
    matrix = degrees(size, size, seed=size, levels=200)
    matrix[matrix < 0.93] = 0.0  # sparse enough for long paths
    closed = max_min_closure(matrix)
    for degree in matrix.unique()[1:].tolist():
        assert Bits.pack(closed >= degree).equal(transitive_closure(Bits.pack(matrix >= degree)))


def test_a_closure_has_only_degrees_that_were_there():
    matrix = degrees(211, 211)
    closed = max_min_closure(matrix)
    assert torch.isin(closed, torch.cat([matrix.flatten(), torch.ones(1)])).all()
    assert max_min_closure(closed).equal(closed)


def test_closing_leaves_the_degrees_as_they_were():
    matrix = degrees(67, 67)
    before = matrix.clone()
    max_min_closure(matrix)
    assert matrix.equal(before)


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 5), st.integers(1, 11), st.integers(0, 999), st.sampled_from([2, 3, 5]), st.sampled_from([0, 0.3])
)
def test_irreducible_columns_and_classes_are_those_of_the_definition(rows, columns, seed, levels, tolerance):
    matrix = degrees(rows, columns, seed, levels)
    order = fuzzy_order(matrix, tolerance)
    classes = naive_classes(matrix, tolerance)
    assert order.classes.tolist() == classes
    found = {name for name, entry in zip(classes, naive_irreducible(matrix, tolerance), strict=True) if entry}
    assert order.irreducible.tolist() == [name in found for name in range(max(classes) + 1)]


@pytest.mark.parametrize("density", [0.5, 0.97])
def test_degrees_of_zero_and_one_are_a_binary_relation(density):
    relation = degrees(31, 67) < density
    fuzzy, crisp = fuzzy_order(relation.float()), closure_order(Bits.pack(relation))
    assert fuzzy.classes.equal(crisp.classes)
    assert fuzzy.irreducible.equal(crisp.irreducible)


def test_a_column_that_is_the_minimum_of_two_others_is_reducible():
    columns = [[0.2, 0.5], [0.2, 0.9], [0.6, 0.5], [1.0, 1.0]]
    assert fuzzy_order(torch.tensor(columns).T).irreducible.tolist() == [False, True, True, False]


def test_a_tolerance_forgives_small_differences():
    matrix = torch.tensor([[0.21, 0.2, 0.6], [0.5, 0.9, 0.49]])
    assert fuzzy_order(matrix).irreducible.tolist() == [True, True, True]
    assert fuzzy_order(matrix, 0.05).irreducible.tolist() == [False, True, True]


def test_nearly_equal_columns_are_one_class():
    order = fuzzy_order(torch.tensor([[0.1, 0.8, 0.15, 0.2]]), 0.06)
    assert order.classes.tolist() == [0, 1, 0, 0]  # 0.1 and 0.2 are joined by 0.15


def test_the_closure_of_random_degrees_leaves_every_column_irreducible():
    order = fuzzy_order(max_min_closure(degrees(127, 127)))
    assert len(order.irreducible) == 127
    assert order.irreducible.all()


@pytest.mark.parametrize("bad", [-0.1, 1.5, torch.nan])
@pytest.mark.parametrize("function", [max_min_closure, fuzzy_order])
def test_degrees_outside_the_range_are_refused(function, bad):
    with pytest.raises(UsageError, match=r"degrees lie in 0\.\.1"):
        function(torch.tensor([[0.5, bad], [0.0, 1.0]]))


def test_shapes_and_tolerances_that_mean_nothing_are_refused():
    with pytest.raises(UsageError, match=r"\(3, 5\) have no closure"):
        max_min_closure(torch.zeros(3, 5))
    with pytest.raises(UsageError, match=r"a tolerance of -1"):
        fuzzy_order(torch.zeros(3, 5), -1)


def test_closure_and_order_are_the_same_on_an_accelerator(accelerator):
    matrix = degrees(257, 257, levels=300)
    closed = max_min_closure(matrix.to(accelerator))
    assert closed.cpu().equal(max_min_closure(matrix))
    expected, found = fuzzy_order(matrix, 0.1), fuzzy_order(matrix.to(accelerator), 0.1)
    assert found.classes.cpu().equal(expected.classes)
    assert found.irreducible.cpu().equal(expected.irreducible)
