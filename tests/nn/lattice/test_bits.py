"""Packed relations against dense ones, at sizes around the words' boundaries."""

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compressor.errors import UsageError
from compressor.nn.lattice.bits import Bits, transitive_closure

SIZES = [1, 7, 8, 63, 64, 65, 127, 129]


def relation(rows, columns, density=0.5, seed=0):
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) < density


def naive_closure(dense):
    """Warshall's three loops."""
    closed = dense.clone().fill_diagonal_(True).tolist()
    size = range(len(closed))
    for k in size:
        for i in size:
            for j in size:
                closed[i][j] = closed[i][j] or (closed[i][k] and closed[k][j])
    return torch.tensor(closed)


def padding(bits):
    """The bits behind the last column."""
    return Bits(bits.words, bits.words.size(1) * 64).unpack()[:, bits.columns :]


@pytest.mark.parametrize("columns", SIZES)
@pytest.mark.parametrize("rows", [1, 65, 131])
def test_packing_keeps_every_entry(rows, columns):
    dense = relation(rows, columns)
    bits = Bits.pack(dense)
    assert bits.words.shape == (rows, (columns + 63) // 64)
    assert (len(bits), bits.columns) == dense.shape
    assert bits.unpack().equal(dense)
    assert bits.unpack(torch.tensor([rows - 1, 0])).equal(dense[[rows - 1, 0]])
    assert bits.counts().equal(dense.sum(1))


@pytest.mark.parametrize("columns", SIZES)
def test_and_or_not_and_transpose_are_those_of_the_dense_relations(columns):
    first, second = relation(67, columns, seed=1), relation(67, columns, seed=2)
    one, two = Bits.pack(first), Bits.pack(second)
    for found, expected in (
        (one & two, first & second),
        (one | two, first | second),
        (~one, ~first),
        (one.transpose(), first.T),
    ):
        assert found.unpack().equal(expected)
        assert found.equal(Bits.pack(expected))
        assert not padding(found).any()


@pytest.mark.parametrize("size", [1, 511, 512, 513])
def test_transposing_works_across_blocks_of_rows(size):
    dense = relation(size, 3)
    assert Bits.pack(dense).transpose().unpack().equal(dense.T)


@pytest.mark.parametrize("size", SIZES)
def test_the_identity_is_the_diagonal(size):
    assert Bits.identity(size, torch.device("cpu")).equal(Bits.pack(torch.eye(size, dtype=torch.bool)))


def test_relations_of_another_width_or_entry_are_not_equal():
    dense = relation(5, 7)
    other = dense.clone()
    other[4, 6] ^= True
    assert not Bits.pack(dense).equal(Bits.pack(other))
    assert not Bits.pack(torch.zeros(5, 7).bool()).equal(Bits.pack(torch.zeros(5, 8).bool()))


def test_a_selection_is_the_submatrix_in_the_order_asked_for():
    dense, rows, columns = (
        relation(71, 131),
        torch.tensor([70, 3, 3]),
        torch.randperm(131, generator=torch.Generator().manual_seed(0))[:67],
    )
    assert Bits.pack(dense).select(rows, columns).unpack().equal(dense[rows][:, columns])


@settings(deadline=None, max_examples=60)
@given(*(st.integers(1, 140) for _ in range(3)), st.floats(0, 0.3), st.integers(0, 99))
def test_a_product_holds_where_some_middle_element_joins(rows, middle, columns, density, seed):
    first, second = relation(rows, middle, density, seed), relation(middle, columns, density, seed + 1)
    found = Bits.pack(first) @ Bits.pack(second)
    assert found.unpack().equal(first.float() @ second.float() > 0)
    assert not padding(found).any()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 20), st.floats(0, 0.4), st.integers(0, 999))
def test_a_closure_is_that_of_the_three_loops(size, density, seed):
    dense = relation(size, size, density, seed)
    assert transitive_closure(Bits.pack(dense)).unpack().equal(naive_closure(dense))


@pytest.mark.parametrize("size", [*SIZES, 257])
@pytest.mark.parametrize("degree", [0.5, 1.1, 3.0])
def test_a_closure_is_that_of_networkx(size, degree):
    dense = relation(size, size, degree / size, seed=size)
    graph = nx.from_numpy_array(dense.numpy(), create_using=nx.DiGraph)
    expected = nx.to_numpy_array(nx.transitive_closure(graph, reflexive=True), nodelist=range(size), dtype=np.float64)
    closed = transitive_closure(Bits.pack(dense))
    assert closed.unpack().equal(torch.from_numpy(expected) > 0)
    assert not padding(closed).any()


def test_closing_leaves_the_relation_as_it_was():
    dense = relation(65, 65, 0.05)
    bits = Bits.pack(dense)
    transitive_closure(bits)
    assert bits.unpack().equal(dense)


def test_a_cycle_through_every_word_reaches_everything():
    assert transitive_closure(Bits.pack(torch.eye(193).roll(1, 0).bool())).unpack().all()


def test_relations_that_do_not_fit_are_refused():
    bits = Bits.pack(relation(5, 7))
    with pytest.raises(UsageError, match="7 columns cannot be composed with one of 5 rows"):
        _ = bits @ bits
    with pytest.raises(UsageError, match="5 rows and 7 columns has no transitive closure"):
        transitive_closure(bits)


def test_a_closure_is_the_same_on_an_accelerator(accelerator):
    dense = relation(1031, 1031, 1.5 / 1031)
    expected = transitive_closure(Bits.pack(dense))
    found = transitive_closure(Bits.pack(dense.to(accelerator)))
    assert found.words.cpu().equal(expected.words)
    assert found.transpose().words.cpu().equal(expected.transpose().words)
