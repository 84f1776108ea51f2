"""The forms that a matrix may have, from the smallest to the most exact one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from exporters.quantization.matrices import Form, partners

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporters.quantization.matrices import Matrix

Arithmetic = Literal["float", "integer", "int4", "static"]
"""What the products of a matrix are computed in, whatever the file stores."""

_BITS: dict[Form, int] = {"float": 32, "half": 16, "int4": 4}
_IN_FLOAT = ("float", "half", "weights")
_INTEGERS = ("integer", "int4")


def bits(form: Form) -> int:
    """Of a weight in the file."""
    return int(form[-1]) if form[-1].isdigit() else _BITS.get(form, 8)


def is_packed(form: Form) -> bool:
    """Fewer than 8 bits that are unpacked in front of everything."""
    return form not in _BITS and bits(form) < 8


def arithmetic(form: Form) -> Arithmetic:
    """Of the products."""
    kind = form.rstrip("0123456789") if is_packed(form) else form
    return "float" if kind in _IN_FLOAT else kind  # type: ignore[return-value]


def stored_in(kind: Literal["weights", "integer"], count: int) -> Form:
    """The form of so many bits in the file, of products in float (`weights`) or integers."""
    plain: dict[int, Form] = {32: "float", 16: "half", 8: kind}
    return plain.get(count) or f"{kind}{count}"  # type: ignore[return-value]


def rounds_inputs(form: Form) -> bool:
    """Whether its products round their inputs to 8 bits while they run."""
    return arithmetic(form) in _INTEGERS


def in_float(form: Form) -> Form:
    """The same bits in the file, with products in float."""
    return form if arithmetic(form) == "float" else stored_in("weights", bits(form))


def word(form: Form) -> str:
    """A form in which something is rounded, as a report calls it."""
    count = f"{bits(form)} bits"
    words = {"half": "float16", "static": "calibrated integers", "integer": "8-bit integers", "int4": count}
    return words.get(form) or (f"{count} as 8-bit integers" if arithmetic(form) == "integer" else count)


ROUNDED: tuple[Form, ...] = tuple(form for form in get_args(Form) if form != "float")
"""All forms in which something is rounded."""


def ladder(matrix: Matrix, precision: str, target: str) -> tuple[Form, ...]:
    """The forms of a matrix, from the one that is wanted to the most exact one."""
    if matrix.refused:
        return ("float",)
    if not matrix.shape:
        return ("static", "float")
    exact: tuple[Form, ...] = ("weights", "half", "float")
    if target == "npu" and not matrix.unfit:
        return ("static", *exact)
    if target == "npu" or not matrix.is_product:
        return exact
    return (*_smaller(matrix, target, four=precision == "int4"), *exact)


def _smaller(matrix: Matrix, target: str, *, four: bool) -> tuple[Form, ...]:
    """The forms of a product that come before 8 bits in the file."""
    if target == "anywhere" or (matrix.slower_as_integers and (matrix.is_recurrent or not four)):
        return ("weights4",) if four else ()
    if not four:
        return ("integer",)
    return ("integer4" if matrix.is_recurrent else "int4", "integer")


def settled(forms: Mapping[str, Form], matrices: Sequence[Matrix]) -> dict[str, Form]:
    """Forms that go together: a recurrent node whose state is multiplied in float stays native as a whole.

    In calibrated integers both of its matrices are, or none.
    """
    chosen = dict(forms)
    for inputs, state in partners(matrices).items():
        if "static" in (chosen[inputs], chosen[state]):
            differ = chosen[inputs] != chosen[state]
            chosen |= {name: "weights" for name in (inputs, state) if differ and chosen[name] == "static"}
        elif rounds_inputs(chosen[inputs]) and not rounds_inputs(chosen[state]):
            chosen[inputs] = in_float(chosen[inputs])
    return chosen
