"""The small experiments of the page Papers."""

import pytest

from benchmarks import papers


def test_equilibrium_propagation_goes_to_backpropagation_as_beta_goes_to_zero():
    rows = papers.equilibrium_propagation()
    one, two = ([row[place] for row in rows] for place in (2, 3))
    assert [beta for beta, *_ in rows] == [1.0, 0.1, 0.01, 0.001]
    assert one == sorted(one, reverse=True)
    assert one[-1] < 1e-3
    assert one[-2] / one[-1] == pytest.approx(10, rel=0.1)
    assert two[-2] / two[-1] == pytest.approx(100, rel=0.1)


def test_an_aaren_has_a_query_more_than_attention():
    assert papers.count(papers.aaren(24, 3)) - papers.count(papers.nn.MultiheadAttention(24, 3)) == 24
