"""Which forms are left if the whole file is to be smaller than the float one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from exporters.quantization.choice import Chosen
from exporters.quantization.matrices import Matrix, Use
from exporters.quantization.whole_file import NothingSaved, no_larger

MATRICES = [Matrix(name, (16, 17), (Use("MatMul", 1, name, plain=True, channels=(1,)),), (1,)) for name in ("a", "b")]


def trials(**sizes):
    """Files have these sizes by the form of `a`, and errors that tell which was measured."""
    return SimpleNamespace(
        bytes=lambda forms: sizes[forms.get("a", "float")],
        metric=None,
        forward=lambda forms: forms["a"],
        error={"integer": 2.0, "weights": 3.0}.get,
    )


def chosen(form):
    return Chosen({"a": form, "b": "half"}, 1.0, None, {}, {}, {})


@pytest.mark.parametrize(
    ("first", "sizes", "last"),
    [
        ("int4", {"float": 90, "int4": 40, "integer": 60, "weights": 50}, "int4"),
        ("int4", {"float": 90, "int4": 70, "integer": 60, "weights": 50}, "integer"),
        ("int4", {"float": 90, "int4": 110, "integer": 100, "weights": 80}, "weights"),
        ("integer", {"float": 90, "integer": 80, "weights": 70}, "integer"),  # faster, and smaller than float
        ("integer", {"float": 90, "integer": 90, "weights": 70}, "weights"),
    ],
)
def test_a_form_gives_way_if_another_makes_the_whole_file_smaller(first, sizes, last):
    result = no_larger(trials(**sizes), MATRICES, chosen(first))
    assert result.forms == {"a": last, "b": "half"}
    assert result.error == (1.0 if first == last else {"integer": 2.0, "weights": 3.0}[last])
    assert set(result.notes) == (set() if first == last else {"a"})


def test_a_file_that_is_no_smaller_in_any_form_is_not_written():
    with pytest.raises(NothingSaved, match="rounded, the file would have 95 B, in float32 it has 90 B"):
        no_larger(trials(float=90, integer=99, weights=95), MATRICES, chosen("integer"))
