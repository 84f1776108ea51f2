"""Tolerances that several test files share, as arguments of `torch.testing.assert_close`."""

SAME_FLOAT64 = {"atol": 1e-12, "rtol": 0.0}
"""The same computation in float64, its sums perhaps in another order."""
EXPORTED_FLOAT32 = {"atol": 1e-5, "rtol": 1e-4}
"""An exported file against PyTorch, both in float32."""
SAME_GRADIENT = {"atol": 1e-12, "rtol": 1e-6}
"""Gradients of the same function in float64, its sums perhaps in another order."""
PREFIX_FLOAT32 = 1e-5
"""Attention over prefixes in float32 against float64: largest error / largest magnitude of values or gradients."""
SAME_ON_ANY_DEVICE = {"atol": 5e-4, "rtol": 1e-3}
"""Weights after a step: devices add in another order, and Adam makes steps of its learning rate, of gradients that
are zero but for that, too, such as those of a key's bias."""
SAME_OUTPUTS_ON_ANY_DEVICE = {"atol": 5e-3, "rtol": 1e-2}
"""Outputs of a model after such a step; they are about 0.3 in the models of the tests."""
