"""The C functions that generated code calls; only those that are used are written into a file.

Plain C99, no memory of their own. Loops run over the innermost axis with independent sums, so that a compiler
vectorises them without being allowed to reorder floating-point arithmetic.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from exporters.c_code.product_kernels import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Mapping

KERNELS: Mapping[str, str] = {
    **PRODUCTS,
    "sigmoid": """
static float k_sigmoid(float x)
{
    return 1.0f / (1.0f + expf(-x));
}
""",
    "erf": """
static float k_erf(float x)
{
    return erff(x);
}
""",
    "matmul": """
/* y[m][n] = sum over k of a[m][k] * b[k][n]. */
static void k_matmul(float *y, const float *a, const float *b, int m, int k, int n)
{
    for (int i = 0; i < m; ++i) {
        for (int j = 0; j < n; ++j) {
            y[i * n + j] = 0.0f;
        }
        for (int l = 0; l < k; ++l) {
            const float factor = a[i * k + l];
            for (int j = 0; j < n; ++j) {
                y[i * n + j] += factor * b[l * n + j];
            }
        }
    }
}
""",
    "exp_sum": """
/* The largest of n elements that lie `step` apart into `top`, and the sum of exp(element - top). */
static float k_exp_sum(const float *x, int n, int step, float *top)
{
    float sum = 0.0f;
    *top = x[0];
    for (int i = 1; i < n; ++i) {
        if (x[i * step] > *top) {
            *top = x[i * step];
        }
    }
    for (int i = 0; i < n; ++i) {
        sum += expf(x[i * step] - *top);
    }
    return sum;
}
""",
    "softmax": """
/* Over the axis of n elements that lie `step` apart. */
static void k_softmax(float *y, const float *x, int n, int step)
{
    float top;
    const float sum = k_exp_sum(x, n, step, &top);
    for (int i = 0; i < n; ++i) {
        y[i * step] = expf(x[i * step] - top) / sum;
    }
}
""",
    "log_softmax": """
/* Over the axis of n elements that lie `step` apart. */
static void k_log_softmax(float *y, const float *x, int n, int step)
{
    float top;
    const float sum = logf(k_exp_sum(x, n, step, &top));
    for (int i = 0; i < n; ++i) {
        y[i * step] = x[i * step] - top - sum;
    }
}
""",
    "cell_rnn_tanh": """
/* One step: g = W x + R h + b. */
static void k_cell_rnn_tanh(float *h, const float *g, int n)
{
    for (int i = 0; i < n; ++i) {
        h[i] = tanhf(g[i]);
    }
}
""",
    "cell_rnn_relu": """
/* One step: g = W x + R h + b. */
static void k_cell_rnn_relu(float *h, const float *g, int n)
{
    for (int i = 0; i < n; ++i) {
        h[i] = (g[i] > 0.0f) ? g[i] : 0.0f;
    }
}
""",
    "cell_gru": """
/* One step: g = W x + b, r = R h + c; gates z, r, n of n units each. */
static void k_cell_gru(float *h, const float *g, const float *r, int n)
{
    for (int i = 0; i < n; ++i) {
        const float z = k_sigmoid(g[i] + r[i]);
        const float reset = k_sigmoid(g[n + i] + r[n + i]);
        const float fresh = tanhf(g[2 * n + i] + reset * r[2 * n + i]);
        h[i] = fresh + z * (h[i] - fresh);
    }
}
""",
    "cell_lstm": """
/* One step: g = W x + R h + b; gates i, o, f, c of n units each. */
static void k_cell_lstm(float *h, float *c, const float *g, int n)
{
    for (int i = 0; i < n; ++i) {
        const float in = k_sigmoid(g[i]);
        const float out = k_sigmoid(g[n + i]);
        const float keep = k_sigmoid(g[2 * n + i]);
        const float fresh = tanhf(g[3 * n + i]);
        c[i] = keep * c[i] + in * fresh;
        h[i] = out * tanhf(c[i]);
    }
}
""",
    "convolution": """
/* p: channels, height, width of x; of y; kernel height, width; strides; dilations; rows and columns of zeros in front;
   groups. b may be NULL. */
static void k_convolution(float *y, const float *x, const float *w, const float *b, const int *p)
{
    const int in = p[0] / p[14], out = p[3] / p[14];
    for (int c = 0; c < p[3]; ++c) {
        for (int i = 0; i < p[4]; ++i) {
            for (int j = 0; j < p[5]; ++j) {
                float sum = b ? b[c] : 0.0f;
                for (int d = 0; d < in; ++d) {
                    for (int k = 0; k < p[6]; ++k) {
                        const int row = i * p[8] + k * p[10] - p[12];
                        for (int l = 0; l < p[7] && row >= 0 && row < p[1]; ++l) {
                            const int column = j * p[9] + l * p[11] - p[13];
                            if (column >= 0 && column < p[2]) {
                                sum += w[((c * in + d) * p[6] + k) * p[7] + l]
                                       * x[((c / out * in + d) * p[1] + row) * p[2] + column];
                            }
                        }
                    }
                }
                y[(c * p[4] + i) * p[5] + j] = sum;
            }
        }
    }
}
""",
    "layer_norm": """
/* Each of m rows of n to mean 0 and variance 1, then scaled; b may be NULL. */
static void k_layer_norm(float *y, const float *x, const float *w, const float *b, int m, int n, float eps)
{
    for (int i = 0; i < m; ++i) {
        const float *row = x + (long)i * n;
        float mean = 0.0f, variance = 0.0f;
        for (int j = 0; j < n; ++j) {
            mean += row[j];
        }
        mean /= (float)n;
        for (int j = 0; j < n; ++j) {
            variance += (row[j] - mean) * (row[j] - mean);
        }
        const float scale = 1.0f / sqrtf(variance / (float)n + eps);
        for (int j = 0; j < n; ++j) {
            y[i * n + j] = (row[j] - mean) * scale * w[j] + (b ? b[j] : 0.0f);
        }
    }
}
""",
}


def with_needed(known: Mapping[str, str], body: str) -> list[str]:
    """The functions of `known`, in its order, that a text calls, and those that these call."""
    wanted: set[str] = set()
    left = _called(body)
    while left:
        name = left.pop()
        wanted.add(name)
        left |= _called(known[name]) - wanted
    return [name for name in known if name in wanted]


def _called(text: str) -> set[str]:
    return set(re.findall(r"\bk_(\w+)\(", text)) | ({"acle"} if "K_DSP" in text or "K_APART" in text else set())
