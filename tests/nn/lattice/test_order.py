"""Orders against enumeration: all small posets, random relations with their whole lattice, and networkx."""

import functools
import itertools

import networkx as nx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.nn.lattice.bits import Bits
from compressor.nn.lattice.order import closure_order, degenerate, describe, reachability_order


def labelled_posets(size):
    """All reflexive and transitive upper triangular relations, (N, size, size)."""
    above = list(itertools.combinations(range(size), 2))
    relations = torch.eye(size).repeat(2 ** len(above), 1, 1)
    for bit, (i, j) in enumerate(above):
        relations[:, i, j] = torch.arange(2 ** len(above)) >> bit & 1
    return relations[((relations @ relations > 0) == (relations > 0)).flatten(1).all(1)]


def posets(size):
    """One of each isomorphism class, by the least code over all relabellings."""
    found = labelled_posets(size)
    weights = 2 ** torch.arange(size * size)
    orders = list(itertools.permutations(range(size)))
    codes = [(found[:, p][:, :, p].flatten(1).long() * weights).sum(1) for p in orders]
    _, which = torch.stack(codes).amin(0).unique(return_inverse=True)
    return [found[(which == kind).nonzero()[0, 0]] > 0 for kind in range(int(which.max()) + 1)]


def masks(rows):
    """Rows of a boolean matrix as integers."""
    return [sum(1 << index for index, entry in enumerate(row) if entry) for row in rows.tolist()]


def intersections(sets, whole):
    """All of them, that of none included: the completion, or the closure system."""
    family = {whole}
    for item in sets:
        family |= {item & other for other in family}
    return family


def upper_covers(item, family):
    above = [other for other in family if other != item and item & other == item]
    return [one for one in above if not any(other != one and other & one == other for other in above)]


def naive_meet(leq, a, b):
    lower = [x for x in range(len(leq)) if leq[x][a] and leq[x][b]]
    return next((x for x in lower if all(leq[y][x] for y in lower)), None)


@functools.cache
def naive_height(strict, x):
    return max((1 + naive_height(strict, y) for y in range(len(strict)) if strict[y][x]), default=0)


def check_order(order, leq):
    """Covers, heights and meets of an order whose relation (k, k) is `leq`."""
    size, rows = range(len(leq)), leq.tolist()
    strict = tuple(tuple(entry and i != j for j, entry in enumerate(row)) for i, row in enumerate(rows))
    covers = [[strict[i][j] and not any(strict[i][k] and strict[k][j] for k in size) for j in size] for i in size]
    assert order.leq.unpack().equal(leq)
    assert order.covers.unpack().tolist() == covers
    assert order.heights.tolist() == [naive_height(strict, x) for x in size]
    for a, b in itertools.product(size, size):
        assert order.meet(a, b) == naive_meet(rows, a, b)


@pytest.mark.parametrize(("size", "labelled", "count"), [(1, 1, 1), (2, 2, 2), (3, 7, 5), (4, 40, 16), (5, 357, 63)])
def test_the_enumeration_knows_every_poset(size, labelled, count):
    assert len(labelled_posets(size)) == labelled  # OEIS A006455
    assert len(posets(size)) == count  # OEIS A000112


@pytest.mark.parametrize("size", range(1, 7))
def test_every_small_poset_comes_back_from_its_covers(size):
    generator = torch.Generator().manual_seed(size)
    for poset in posets(size):
        label = torch.randperm(size, generator=generator)
        leq = poset[label][:, label]  # not only upper triangular
        between = torch.eye(size).bool() ^ leq
        diagram = between & ~(between.float() @ between.float() > 0)
        order = reachability_order(Bits.pack(diagram.T))  # row = target, column = source
        assert order.classes.tolist() == list(range(size))
        check_order(order, leq)
        downs = masks(leq.T)
        completion = intersections(downs, 2**size - 1)
        assert order.irreducible.tolist() == [len(upper_covers(down, completion)) == 1 for down in downs]


@settings(deadline=None, max_examples=80)
@given(st.integers(1, 9), st.integers(1, 7), st.floats(0.05, 0.95), st.integers(0, 999))
def test_a_closure_order_is_that_of_the_whole_closure_system(units, rows, density, seed):
    relation = torch.rand(rows, units, generator=torch.Generator().manual_seed(seed)) < density
    order = closure_order(Bits.pack(relation))
    extents = masks(relation.T)
    different = list(dict.fromkeys(extents))  # in the order of their first unit
    assert order.classes.tolist() == [different.index(extent) for extent in extents]
    assert masks(order.extents.unpack()) == different
    check_order(order, torch.tensor([[a & b == a for b in different] for a in different]))
    system = intersections(different, 2**rows - 1)
    assert order.irreducible.tolist() == [len(upper_covers(extent, system)) == 1 for extent in different]


@pytest.mark.parametrize("size", [1, 63, 64, 65, 127, 129, 211])
@pytest.mark.parametrize("degree", [0.7, 1.3])
def test_components_and_their_order_are_those_of_networkx(size, degree):
    adjacency = torch.rand(size, size, generator=torch.Generator().manual_seed(size)) < degree / size
    order = reachability_order(Bits.pack(adjacency))
    graph = nx.from_numpy_array(adjacency.T.numpy(), create_using=nx.DiGraph)  # j -> i where A[i, j]
    condensed = nx.condensation(graph)
    names = {order.classes[min(data["members"])].item(): node for node, data in condensed.nodes(data=True)}
    assert all(
        order.classes[unit] == order.classes[min(data["members"])]
        for _, data in condensed.nodes(data=True)
        for unit in data["members"]
    )
    assert order.count == len(condensed)
    assert order.largest == max(map(len, nx.strongly_connected_components(graph)))
    edges = {(names[x], names[y]) for x, y in order.covers.unpack().nonzero().tolist()}
    assert edges == set(nx.transitive_reduction(condensed).edges)
    generations = {node: level for level, nodes in enumerate(nx.topological_generations(condensed)) for node in nodes}
    assert order.heights.tolist() == [generations[names[x]] for x in range(order.count)]


@pytest.mark.parametrize("size", [64, 129])
def test_irreducibility_of_many_units_is_the_intersection_taken_one_by_one(size):
    relation = torch.rand(size, size, generator=torch.Generator().manual_seed(size)) < 0.03
    order = closure_order(Bits.pack(relation))
    extents = order.extents.unpack()
    for x, extent in enumerate(extents):
        above = [other for other in extents if (extent <= other).all() and not extent.equal(other)]
        meet = torch.stack([torch.ones_like(extent), *above]).all(0)
        assert bool(order.irreducible[x]) == (not meet.equal(extent))


def test_a_chain_is_as_high_as_it_is_long():
    order = reachability_order(Bits.pack(torch.eye(131).roll(1, 0).tril().bool()))
    assert order.heights.tolist() == list(range(131))
    assert order.irreducible.tolist() == [True] * 130 + [False]  # all but the top
    assert order.meet(97, 5) == 5


def test_units_that_feed_each_other_are_one_class():
    adjacency = torch.zeros(5, 5, dtype=torch.bool)
    adjacency[3, 1] = adjacency[1, 3] = adjacency[4, 3] = True  # 1 <-> 3 -> 4
    order = reachability_order(Bits.pack(adjacency))
    assert order.classes.tolist() == [0, 1, 2, 1, 3]
    assert order.less.unpack().nonzero().tolist() == [[1, 3]]


def test_the_whole_set_is_never_irreducible():
    assert closure_order(Bits.pack(torch.ones(3, 5).bool())).irreducible.tolist() == [False]
    assert closure_order(Bits.pack(torch.zeros(3, 5).bool())).irreducible.tolist() == [True]


def random_relation(size, percent):
    matrix = torch.randn(size, size, generator=torch.Generator().manual_seed(0)).abs()
    return Bits.pack(matrix > torch.quantile(matrix.flatten(), percent / 100))


@pytest.mark.parametrize("percent", [10, 50, 90])
def test_a_dense_random_matrix_collapses_by_reachability_and_not_by_closure(percent):
    dense = random_relation(128, percent)
    reach, closure = reachability_order(dense), closure_order(dense)
    assert (reach.count, reach.largest, int(reach.irreducible.sum())) == (1, 128, 0)
    assert degenerate(reach.classes, reach.irreducible) == "one class holds 128 of 128 units, more than 90 %"
    assert closure.count == 128
    assert int(closure.irreducible.sum()) >= 126
    assert degenerate(closure.classes, closure.irreducible) is None


def test_a_sparse_random_matrix_has_many_components():
    sparse = random_relation(128, 99)
    reach, closure = reachability_order(sparse), closure_order(sparse)
    assert reach.count > 90
    assert 0 < int(reach.irreducible.sum()) < reach.count
    assert closure.count < 100
    assert int(closure.irreducible.sum()) < closure.count
    assert degenerate(reach.classes, reach.irreducible) is None


@pytest.mark.parametrize(
    ("sizes", "irreducible", "reason"),
    [
        ([9, 1], [True, False], None),
        ([10, 1], [True, True], "one class holds 10 of 11 units, more than 90 %"),
        ([2, 3], [False, False], "none of the 2 classes is meet-irreducible"),
        ([2, 3], [True, True], None),
    ],
)
def test_an_order_that_cannot_guide_says_why(sizes, irreducible, reason):
    classes = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    assert degenerate(classes, torch.tensor(irreducible)) == reason


def test_a_description_says_where_everything_is_irreducible():
    classes = torch.tensor([0, 1, 1])
    assert (
        describe(classes, torch.tensor([True, True])) == "3 units in 2 classes, the largest of 2; all meet-irreducible"
    )
    assert describe(classes, torch.tensor([True, False])).endswith("; 1 meet-irreducible")


@pytest.mark.parametrize("read", [reachability_order, closure_order])
def test_an_order_is_the_same_on_an_accelerator(read, accelerator):
    relation = torch.rand(257, 257, generator=torch.Generator().manual_seed(0)) < 1.2 / 257
    expected, found = read(Bits.pack(relation)), read(Bits.pack(relation.to(accelerator)))
    assert found.classes.cpu().equal(expected.classes)
    assert found.covers.words.cpu().equal(expected.covers.words)
    assert found.heights.cpu().equal(expected.heights)
    assert found.irreducible.cpu().equal(expected.irreducible)
