"""exp, tanh and the logistic function in single precision alone, for processors without double precision.

exp(x) = 2^n exp(r) with n = round(x / ln 2) and r = x - n ln 2 in two parts (Cody and Waite, Software Manual for the
Elementary Functions, chapter 6); exp(r) = 1 + r + r^2 P(r) with P of degree 4, fitted to the largest relative error on
|r| <= ln(2) / 2. tanh and the logistic function come from it. No table, no branch.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

EXP_ERROR: Final = 3e-7
"""Largest relative error of exp between -87 and 87; beyond it gives what it gives there, and for NaN a number."""
SIGMOID_ERROR: Final = 2e-7
TANH_ERROR: Final = 3e-7
"""Largest absolute errors of the logistic function and of tanh."""

FAST: Final[Mapping[str, str]] = {
    "exp": """
/* exp(x), relative error at most 3e-7 from -87 to 87, and as there beyond. No branches, so that loops of it vectorise:
   the clamp is one of whole numbers, and adding 1.5 * 2^23 leaves the nearest whole number in the last bits. */
static float k_exp(float x)
{
    int32_t bits, sign, size;
    float in, scale;
    (void)memcpy(&bits, &x, sizeof bits);
    size = bits & INT32_MAX;
    sign = bits - size;
    size = (size < 0x42AE0000) ? size : 0x42AE0000; /* 87 */
    bits = size + sign;
    (void)memcpy(&in, &bits, sizeof in);
    const float nearest = in * 1.44269502f + 12582912.0f;
    (void)memcpy(&bits, &nearest, sizeof bits);
    const int32_t whole = bits - 0x4B400000;
    const float r = (in - (float)whole * 0.693359375f) + (float)whole * 2.12194442e-4f;
    const float p = 0.49999994f + r * (0.166665196f + r * (0.0416684002f + r * (0.00836885069f + r * 0.0013814321f)));
    bits = (whole + 127) * 8388608; /* 2^whole */
    (void)memcpy(&scale, &bits, sizeof scale);
    return scale * (1.0f + r + r * r * p);
}
""",
    "sigmoid": """
/* 1 / (1 + exp(-x)), absolute error at most 2e-7. */
static float k_sigmoid(float x)
{
    return 1.0f / (1.0f + k_exp(-x));
}
""",
    "tanh": """
/* tanh(x), absolute error at most 3e-7. */
static float k_tanh(float x)
{
    return 2.0f / (1.0f + k_exp(-2.0f * x)) - 1.0f;
}
""",
}
"""Function -> its C."""


def fast(text: str) -> str:
    """C that calls these instead of `math.h`."""
    return re.sub(r"\b(exp|tanh)f\(", r"k_\1(", text)
