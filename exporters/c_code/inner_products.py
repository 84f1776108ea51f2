"""The inner loops of products in C: rows of weights with one vector of inputs, two rows at a time where that helps.

Sums of floats run side by side, so that a compiler vectorises them without being allowed to reorder floating-point
arithmetic. Where inputs are whole numbers, sums are in 32 bits and cannot overflow, and loops have a constant length,
which gcc vectorises with -O2 too. Processors with ARM's extension for signal processing (Cortex-M4, M7, M33) take two
products an instruction; for these the inputs lie in the order in which its unpacking gives the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCK: Final = 32
"""Weights of 4 bits with a common scale."""

ACLE: Final = """
#if defined(__GNUC__) && defined(__ARM_FEATURE_DSP) && defined(__ARM_FEATURE_SIMD32)
#include <arm_acle.h>
#define K_DSP 1
#define K_APART __attribute__((noinline)) /* inside of other loops, registers are too few */
#else
#define K_DSP 0
#define K_APART
#endif
"""

_DOT = """
#if !K_DSP
/* Sum of w[i] * x[i]; four sums, so that they can be computed side by side. */
static float k_dot_NAME(const TYPE *w, const float *x, int n)
{
    float s0 = 0.0f, s1 = 0.0f, s2 = 0.0f, s3 = 0.0f;
    const int whole = n / 4 * 4;
    for (int i = 0; i < whole; i += 4) {
        s0 += CASTw[i] * x[i];
        s1 += CASTw[i + 1] * x[i + 1];
        s2 += CASTw[i + 2] * x[i + 2];
        s3 += CASTw[i + 3] * x[i + 3];
    }
    for (int i = whole; i < n; ++i) {
        s0 += CASTw[i] * x[i];
    }
    return (s0 + s1) + (s2 + s3);
}
#endif
"""
_PAIR = """
/* s[0] = v . x and s[1] = w . x. */
static void k_pair_NAME(float *s, const TYPE *v, const TYPE *w, const float *x, int n)
{
#if K_DSP /* no vectors of floats: an input is loaded once for both rows */
    float v0 = 0.0f, v1 = 0.0f, v2 = 0.0f, v3 = 0.0f;
    float w0 = 0.0f, w1 = 0.0f, w2 = 0.0f, w3 = 0.0f;
    const int whole = n / 4 * 4;
    for (int i = 0; i < whole; i += 4) {
        v0 += CASTv[i] * x[i];
        v1 += CASTv[i + 1] * x[i + 1];
        v2 += CASTv[i + 2] * x[i + 2];
        v3 += CASTv[i + 3] * x[i + 3];
        w0 += CASTw[i] * x[i];
        w1 += CASTw[i + 1] * x[i + 1];
        w2 += CASTw[i + 2] * x[i + 2];
        w3 += CASTw[i + 3] * x[i + 3];
    }
    for (int i = whole; i < n; ++i) {
        v0 += CASTv[i] * x[i];
        w0 += CASTw[i] * x[i];
    }
    s[0] = (v0 + v1) + (v2 + v3);
    s[1] = (w0 + w1) + (w2 + w3);
#else
    s[0] = k_dot_NAME(v, x, n);
    s[1] = k_dot_NAME(w, x, n);
#endif
}
"""
_ROW_INT4 = """
/* w . x of a row of weights of 4 bits, each stored + 8, with a scale for BLOCK of them. A word holds 8: the first four
   in the low halves of its bytes, the others in the high ones. */
static float k_row_int4(const uint8_t *w, const float *scale, const float *x, int n)
{
    float sum = 0.0f;
    for (int left = n; left > 0; left -= BLOCK) {
        const int words = ((left < BLOCK) ? left : BLOCK) / 8, rest = (left < BLOCK) ? left % 8 : 0;
        float part0 = 0.0f, part1 = 0.0f;
        for (int k = 0; k < words; ++k) {
            part0 += (float)((w[0] & 15) - 8) * x[0];
            part1 += (float)((w[1] & 15) - 8) * x[1];
            part0 += (float)((w[2] & 15) - 8) * x[2];
            part1 += (float)((w[3] & 15) - 8) * x[3];
            part0 += (float)((w[0] >> 4) - 8) * x[4];
            part1 += (float)((w[1] >> 4) - 8) * x[5];
            part0 += (float)((w[2] >> 4) - 8) * x[6];
            part1 += (float)((w[3] >> 4) - 8) * x[7];
            w += 4;
            x += 8;
        }
        for (int i = 0; i < rest; ++i) {
            const int weight = (i < 4) ? w[i] & 15 : w[i - 4] >> 4;
            part0 += (float)(weight - 8) * x[i];
        }
        sum += *scale * (part0 + part1);
        ++scale;
    }
    return sum;
}
"""
FLOATS: Final[Mapping[str, str]] = {
    f"{name}{end}": text.replace("_NAME", end).replace("TYPE", kind).replace("CAST", cast)
    for end, kind, cast in (("", "float", ""), ("_int8", "int8_t", "(float)"))
    for name, text in (("dot", _DOT), ("pair", _PAIR))
} | {"row_int4": _ROW_INT4}
"""Name -> C of products whose inputs are floats."""

_QUANTISE = """
/* x = scale * q for n inputs, q whole numbers from -most to most in the order that the products want; zeros up to
   `room`. Gives the scale. */
static float k_quantise_NAME(TYPE *q, const float *x, int n, int room, int32_t most)
{
    float peak = 0.0f;
    for (int i = 0; i < n; ++i) {
        const float size = fabsf(x[i]);
        peak = (size > peak) ? size : peak;
    }
    const float factor = (peak > 1e-30f) ? (float)most / peak : 0.0f;
    for (int i = 0; i < room; ++i) {
        const float value = (i < n) ? x[i] * factor : 0.0f;
PLACE
        q[place] = (TYPE)(value + ((value >= 0.0f) ? 0.5f : -0.5f));
    }
    return peak / (float)most;
}
"""
_PLACES = {
    "x8": "        const int place = i;",
    "x16": """#if K_DSP /* groups of 4 as 0, 2, 1, 3 */
        const int at = i % 4, group = i - at;
        const int place = (group + 4 <= room && (at == 1 || at == 2)) ? group + 3 - at : i;
#else
        const int place = i;
#endif""",
}
QUANTISE: Final[Mapping[str, str]] = {
    f"quantise_{name}": _QUANTISE.replace("NAME", name).replace("TYPE", kind).replace("PLACE", _PLACES[name])
    for name, kind in (("x8", "int8_t"), ("x16", "int16_t"))
}
"""Name -> C of what makes whole numbers of inputs."""

_PAIR_INT8_WHOLE = """
/* s[0] = v . q and s[1] = w . q. */
static K_APART void k_pair_NAME(int32_t *s, const int8_t *v, const int8_t *w, const TYPE *q, int n)
{
    int32_t sum0 = 0, sum1 = 0;
#if K_DSP
    const int whole = n / 4 * 4;
    for (int i = 0; i < whole; i += 4) {
        uint32_t four0, four1;
        (void)memcpy(&four0, v + i, sizeof four0);
        (void)memcpy(&four1, w + i, sizeof four1);
LOAD
        sum0 = __smlad(__sxtb16((int8x4_t)four0), first, sum0);
        sum1 = __smlad(__sxtb16((int8x4_t)four1), first, sum1);
        sum0 = __smlad(__sxtb16((int8x4_t)(four0 >> 8)), second, sum0);
        sum1 = __smlad(__sxtb16((int8x4_t)(four1 >> 8)), second, sum1);
    }
#else
    const int whole = n / BLOCK * BLOCK;
    for (int i = 0; i < whole; i += BLOCK) {
        int32_t part0 = 0, part1 = 0;
        for (int j = 0; j < BLOCK; ++j) {
            part0 += (int32_t)v[i + j] * q[i + j];
        }
        for (int j = 0; j < BLOCK; ++j) {
            part1 += (int32_t)w[i + j] * q[i + j];
        }
        sum0 += part0;
        sum1 += part1;
    }
#endif
    for (int i = whole; i < n; ++i) {
        sum0 += (int32_t)v[i] * q[i];
        sum1 += (int32_t)w[i] * q[i];
    }
    s[0] = sum0;
    s[1] = sum1;
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
_ROW_INT4_WHOLE = """
/* w . q of a row of weights of 4 bits, each stored + 8, with a scale for BLOCK of them; z is what that is too much, as
   `k_block_sums` gives it. A word holds 8: the first four in the low halves of its bytes, the others in the high ones,
   which count 16 times until the end of a block. */
static K_APART float k_row_int4_whole(const uint8_t *w, const float *scale, const int16_t *q, const int32_t *z, int n)
{
    float sum = 0.0f;
    for (int left = (n + 7) / 8; left > 0; left -= BLOCK / 8) {
        int32_t part = -*z, high = 0;
        for (int words = (left < BLOCK / 8) ? left : BLOCK / 8; words > 0; --words) {
#if K_DSP
            uint32_t eight;
            int16x2_t q0, q1, q2, q3;
            (void)memcpy(&eight, w, sizeof eight);
            (void)memcpy(&q0, q, sizeof q0);
            (void)memcpy(&q1, q + 2, sizeof q1);
            (void)memcpy(&q2, q + 4, sizeof q2);
            (void)memcpy(&q3, q + 6, sizeof q3);
            part = __smlad((int16x2_t)(eight & 0x000F000Fu), q0, part);
            high = __smlad((int16x2_t)(eight & 0x00F000F0u), q2, high);
            eight >>= 8;
            part = __smlad((int16x2_t)(eight & 0x000F000Fu), q1, part);
            high = __smlad((int16x2_t)(eight & 0x00F000F0u), q3, high);
#else
            for (int i = 0; i < 4; ++i) {
                part += (w[i] & 15) * q[i];
                high += (w[i] & 240) * q[i + 4];
            }
#endif
            w += 4;
            q += 8;
        }
        sum += *scale * (float)(part + high / 16);
        ++scale;
        ++z;
    }
    return sum;
}
"""
WHOLE: Final[Mapping[str, str]] = {
    f"pair_{name}": text.replace("NAME", name).replace("LOAD", _LOADS.get(name, "")).replace("TYPE", kind)
    for name, text, kind in (
        ("int8_x16", _PAIR_INT8_WHOLE, "int16_t"),
        ("int8_x8", _PAIR_INT8_WHOLE, "int8_t"),
    )
} | {"row_int4_whole": _ROW_INT4_WHOLE}
"""Name -> C of products whose inputs are whole numbers."""
