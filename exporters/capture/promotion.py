"""Type promotion without a further run of the graph.

ONNX operators take tensors of one type, so `torch.onnx.export` puts a cast in front of each operator that mixes types.
To learn the types it runs the whole graph once more on tensors without values, an eighth of the time of an export. The
traced program has them written beside each node already, and a cast changes no type behind it: so only the nodes that
get a cast are run here.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from exporters.capture.function_library import replaced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import fx


@contextlib.contextmanager
def by_known_types() -> Iterator[None]:
    """Within the block, `torch.onnx.export` runs a node for its type only if none is written beside it.

    It has no public argument for this. With a version of PyTorch that promotes elsewhere, exports are slower and the
    same.
    """
    try:
        from torch.onnx._internal.fx.passes import type_promotion
    except ImportError:
        yield
        return
    original: Any = vars(type_promotion).get("_TypePromotionInterpreter")
    rule = vars(type_promotion).get("get_type_promotion_rule")
    if rule is None or not {"_maybe_promote_node", "_set_current_node"} <= set(dir(original)):
        yield
        return
    with replaced(type_promotion, "_TypePromotionInterpreter", _frugal(original, rule)):
        yield


def _frugal(original: Any, rule_of: Callable[..., Any]) -> type[fx.Interpreter]:
    """PyTorch's class that puts in the casts, without the runs that tell nothing new."""

    class Frugal(original):  # type: ignore[misc]
        def run_node(self, n: fx.Node) -> Any:
            if n.op != "call_function" or "val" not in n.meta:
                return super().run_node(n)
            if rule := rule_of(n, self.type_promotion_table):
                with self._set_current_node(n):
                    self._maybe_promote_node(n, rule)  # a node that it changes is run, and its type written anew
            return n.meta["val"]

    return Frugal
