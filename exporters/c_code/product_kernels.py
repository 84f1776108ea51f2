"""The C functions of products with constant matrices: weights of 32, 8 or 4 bits, inputs of 32, 16 or 8.

Rows of weights are multiplied with one input vector. Sums of floats run side by side, so that a compiler vectorises
them without being allowed to reorder floating-point arithmetic. Where inputs are integers, sums are in 32 bits and
cannot overflow. Processors with ARM's extension for signal processing (Cortex-M4, M7, M33) take two products an
instruction; for these the inputs lie in the order in which its unpacking gives the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

Activations = Literal["float32", "int16", "int8"]
BLOCK: Final = 32
"""Weights of 4 bits with a common scale."""

_DOT = """
/* Sum of w[i] * x[i]; four sums, so that they can be computed side by side. */
static float k_dot(const float *w, const float *x, int n)
{
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        s0 += w[i] * x[i];
        s1 += w[i + 1] * x[i + 1];
        s2 += w[i + 2] * x[i + 2];
        s3 += w[i + 3] * x[i + 3];
    }
    for (; i < n; ++i) {
        s0 += w[i] * x[i];
    }
    return (s0 + s1) + (s2 + s3);
}
"""
_DOT_INT8 = """
/* Sum of w[i] * x[i] of weights of one byte. */
static float k_dot_int8(const int8_t *w, const float *x, int n)
{
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    int i = 0;
    for (; i + 4 <= n; i += 4) {
        s0 += (float)w[i] * x[i];
        s1 += (float)w[i + 1] * x[i + 1];
        s2 += (float)w[i + 2] * x[i + 2];
        s3 += (float)w[i + 3] * x[i + 3];
    }
    for (; i < n; ++i) {
        s0 += (float)w[i] * x[i];
    }
    return (s0 + s1) + (s2 + s3);
}
"""
_DOT_INT4 = """
/* Sum of w[i] * x[i] of at most BLOCK weights of 4 bits: two in a byte, the first in its low half, each + 8. */
static float k_dot_int4(const uint8_t *w, const float *x, int n)
{
    float s0 = 0.0f, s1 = 0.0f;
    int i = 0;
    for (; i + 2 <= n; i += 2) {
        const int both = w[i / 2];
        s0 += (float)((both & 15) - 8) * x[i];
        s1 += (float)((both >> 4) - 8) * x[i + 1];
    }
    if (i < n) {
        s0 += (float)((w[i / 2] & 15) - 8) * x[i];
    }
    return s0 + s1;
}
"""
_ACLE = """
#if defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
#define K_DSP 1
#define K_APART __attribute__((noinline)) /* inside of other loops, registers are too few */
#else
#define K_DSP 0
#define K_APART
#endif
"""
_MOST = """
/* The largest whole number of 16 bits with which a sum of n products with 127 fits into 32 bits. */
static int k_most(int n)
{
    const int32_t fits = 2147483647 / 127 / (int32_t)n;
    return (fits < 32767) ? (int)fits : 32767;
}
"""
_QUANTISE = """
/* x = scale * q for n inputs, q whole numbers from -most to most in the order that the products want; gives scale. */
static float k_quantise_NAME(TYPE *q, const float *x, int n, int most)
{
    float peak = 0.0f;
    for (int i = 0; i < n; ++i) {
        const float size = fabsf(x[i]);
        peak = (size > peak) ? size : peak;
    }
    const float factor = (peak > 1e-30f) ? (float)most / peak : 0.0f;
    for (int i = 0; i < n; ++i) {
        const float value = x[i] * factor;
PLACE
        q[place] = (TYPE)(value + ((value >= 0.0f) ? 0.5f : -0.5f));
    }
    return peak / (float)most;
}
"""
_PLACES = {
    "int8_x8": "        const int place = i;",
    "int8_x16": """#if K_DSP /* groups of 4 as 0, 2, 1, 3 */
        const int at = (int)((unsigned)i & 3u), group = i - at;
        const int place = (group + 4 <= n && (at == 1 || at == 2)) ? group + 3 - at : i;
#else
        const int place = i;
#endif""",
    "int4": """#if K_DSP /* groups of 8 as 0, 4, 1, 5, 2, 6, 3, 7 */
        const int at = (int)((unsigned)i & 7u), group = i - at;
        const int place = (group + 8 > n) ? i : (at < 4) ? group + 2 * at : group + 2 * at - 7;
#else
        const int place = i;
#endif""",
}
_DOT_INT8_WHOLE = """
/* Sum of w[i] * q[i]. */
static K_APART int32_t k_dot_NAME(const int8_t *w, const TYPE *q, int n)
{
    int32_t sum = 0;
    int i = 0;
#if K_DSP
    for (; i + 4 <= n; i += 4) {
        uint32_t four;
        (void)memcpy(&four, w + i, sizeof four);
LOAD
        sum = __smlad(__sxtb16((int8x4_t)four), first, sum);
        sum = __smlad(__sxtb16((int8x4_t)(four >> 8)), second, sum);
    }
#endif
    for (; i < n; ++i) {
        sum += (int32_t)w[i] * q[i];
    }
    return sum;
}
"""
_LOADS = {
    "int8_x16": """        int16x2_t first, second;
        (void)memcpy(&first, q + i, sizeof first);
        (void)memcpy(&second, q + i + 2, sizeof second);""",
    "int8_x8": """        uint32_t inputs;
        (void)memcpy(&inputs, q + i, sizeof inputs);
        const int16x2_t first = __sxtb16((int8x4_t)inputs), second = __sxtb16((int8x4_t)(inputs >> 8));""",
}
_DOT_INT4_WHOLE = """
/* Sum of w[i] * q[i] of at most BLOCK weights of 4 bits: two in a byte, the first in its low half, each + 8. */
static K_APART int32_t k_dot_NAME(const uint8_t *w, const TYPE *q, int n)
{
    int32_t sum = 0;
    int i = 0;
#if K_DSP
    for (; i + 8 <= n; i += 8) {
        uint32_t eight;
        int16x2_t p0, p1, p2, p3;
        (void)memcpy(&eight, w + i / 2, sizeof eight);
        (void)memcpy(&p0, q + i, sizeof p0);
        (void)memcpy(&p1, q + i + 2, sizeof p1);
        (void)memcpy(&p2, q + i + 4, sizeof p2);
        (void)memcpy(&p3, q + i + 6, sizeof p3);
        sum = __smlad(__ssub16((int16x2_t)(eight & 0x000F000Fu), 0x00080008), p0, sum);
        sum = __smlad(__ssub16((int16x2_t)((eight >> 4) & 0x000F000Fu), 0x00080008), p1, sum);
        sum = __smlad(__ssub16((int16x2_t)((eight >> 8) & 0x000F000Fu), 0x00080008), p2, sum);
        sum = __smlad(__ssub16((int16x2_t)((eight >> 12) & 0x000F000Fu), 0x00080008), p3, sum);
    }
#endif
    for (; i + 2 <= n; i += 2) {
        const int32_t both = w[i / 2];
        sum += ((both & 15) - 8) * q[i] + ((both >> 4) - 8) * q[i + 1];
    }
    if (i < n) {
        sum += ((w[i / 2] & 15) - 8) * q[i];
    }
    return sum;
}
"""
_ROWS = """
/* y[m][r] = w[r] . x[m] + b[r] + a[m][r]; w has one row of n weights for each of the r outputs.
   b and a may be NULL, and a may be y.SCALED */
static void k_rows_NAME(PARAMETERS, const float *b,
                        const float *a, int m, int r, int n)
{
    for (int i = 0; i < m; ++i) {
        const float *const in = x + (long)i * n;
BEFORE        for (int j = 0; j < r; ++j) {
SUM
            sum += (b != NULL) ? b[j] : 0.0f;
            sum += (a != NULL) ? a[i * r + j] : 0.0f;
            y[i * r + j] = sum;
        }
    }
}
"""
_BLOCKS = """            const uint8_t *const row = w + (long)j * ((n + 1) / 2);
            const float *const scales = scale + (long)j * ((n + BLOCK - 1) / BLOCK);
            float sum = 0.0f;
            for (int k = 0; k < n; k += BLOCK) {
                const int count = (n - k < BLOCK) ? n - k : BLOCK;
                sum += scales[k / BLOCK] * DOT;
            }"""
_ENDS: Final[Mapping[Activations, str]] = {"float32": "", "int16": "_x16", "int8": "_x8"}


def rows_function(bits: int, activations: Activations) -> str:
    """Name of the function for rows of weights of 32, 8 or 4 bits."""
    return "rows" if bits == 32 else f"rows_int{bits}{_ENDS[activations]}"


def held(bits: int, activations: Activations) -> str:
    """The C type of the whole numbers that inputs become; empty if they stay floats."""
    if bits == 32 or activations == "float32":
        return ""
    return "int8_t" if (bits, activations) == (8, "int8") else "int16_t"


def _rows(bits: int, activations: Activations) -> str:
    whole, name = held(bits, activations), rows_function(bits, activations).removeprefix("rows_")
    weights = {
        32: "const float *w",
        8: "const int8_t *w, const float *scale",
        4: "const uint8_t *w, const float *scale",
    }
    parameters = f"float *y, const float *x, {f'{whole} *q, ' if whole else ''}{weights[bits]}"
    source, dot = ("q", f"(float)k_dot_{name}") if whole else ("in", "k_dot" if bits == 32 else f"k_dot_{name}")
    most = {8: "k_most(n)", 4: "32767"}[bits] if activations == "int16" and whole else "127"
    before = f"        const float unit = k_quantise_{name}(q, in, n, {most});\n" if whole else ""
    if bits == 4:
        call = f"{dot}(row + k / 2, {source} + k, count)"
        total = _BLOCKS.replace("DOT", call) + ("\n            sum *= unit;" if whole else "")
    else:
        factor = "" if bits == 32 else "scale[j] * unit * " if whole else "scale[j] * "
        total = f"            float sum = {factor}{dot}(w + (long)j * n, {source}, n);"
    scaled = {32: "", 8: " A weight is scale * w.", 4: " A weight is scale * (w - 8), a scale for BLOCK of them."}[bits]
    text = _ROWS.replace("PARAMETERS", parameters).replace("BEFORE", before).replace("SUM", total)
    return (
        text.replace("SCALED", scaled).replace("_NAME", "" if bits == 32 else f"_{name}").replace("BLOCK", str(BLOCK))
    )


def _whole(bits: int, activations: Activations) -> dict[str, str]:
    """The functions of products whose inputs are whole numbers, those of rows excepted."""
    name, held_ = f"int{bits}{_ENDS[activations]}", held(bits, activations)
    place = _PLACES["int4" if bits == 4 else name]
    dot = _DOT_INT4_WHOLE if bits == 4 else _DOT_INT8_WHOLE.replace("LOAD", _LOADS[name])
    texts = {f"quantise_{name}": _QUANTISE.replace("PLACE", place), f"dot_{name}": dot.replace("BLOCK", str(BLOCK))}
    return {word: text.replace("NAME", name).replace("TYPE", held_) for word, text in texts.items()}


def _all() -> dict[str, str]:
    texts = {"acle": _ACLE, "most": _MOST, "dot": _DOT, "rows": _rows(32, "float32")}
    for bits, dot in ((8, _DOT_INT8), (4, _DOT_INT4)):
        texts |= {f"dot_int{bits}": dot.replace("BLOCK", str(BLOCK)), f"rows_int{bits}": _rows(bits, "float32")}
        for activations in _WHOLE:
            texts |= {**_whole(bits, activations), rows_function(bits, activations): _rows(bits, activations)}
    return texts


_WHOLE: Final[tuple[Activations, ...]] = ("int16", "int8")
PRODUCTS: Final[Mapping[str, str]] = _all()
"""Name -> C; each calls only functions before it."""
