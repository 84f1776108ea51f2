"""The forms that a matrix may have, from the smallest to the most exact one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exporters.quantization.matrices import partners

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from exporters.quantization.matrices import Form, Matrix

WORDS: dict[Form, str] = {
    "weights": "8 bits",
    "integer": "8-bit integers",
    "int4": "4 bits",
    "half": "float16",
    "static": "calibrated integers",
}
"""Forms in which something is rounded, as a report calls them."""


def ladder(matrix: Matrix, precision: str, target: str) -> tuple[Form, ...]:
    """The forms of a matrix, from the one that is wanted to the most exact one."""
    if matrix.refused:
        return ("float",)
    if not matrix.shape:
        return ("static", "float")
    exact: tuple[Form, ...] = ("weights", "half", "float")
    if target == "npu":
        return exact if matrix.unfit else ("static", *exact)
    if target == "anywhere" or not matrix.is_product:
        return exact
    if precision == "int4":
        return ("int4", "integer", *exact)
    return exact if matrix.slower_as_integers else ("integer", *exact)


def settled(forms: Mapping[str, Form], matrices: Sequence[Matrix]) -> dict[str, Form]:
    """Forms that go together: a recurrent node whose state is multiplied in float stays native as a whole.

    In calibrated integers both of its matrices are, or none.
    """
    chosen = dict(forms)
    for inputs, state in partners(matrices).items():
        if "static" in (chosen[inputs], chosen[state]):
            differ = chosen[inputs] != chosen[state]
            chosen |= {name: "weights" for name in (inputs, state) if differ and chosen[name] == "static"}
        elif chosen[inputs] in ("integer", "int4") and chosen[state] not in ("integer", "int4"):
            chosen[inputs] = "weights"
    return chosen
