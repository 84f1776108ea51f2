"""What PyTorch records while it traces a model, without what nothing reads of a trace with an open length.

It stores the shape of each result for the next operator that is alike. With open sizes that takes nearly as long as to
compute it, and few operators are alike unless a loop over time is unrolled, which it is only at a fixed length. It also
notes the line of code of each operator, which is shown only of loops that cannot be rolled up.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from compressor.task.axes import TIME
from exporters.capture.function_library import replaced

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_STORE = "fake_tensor_cache_enabled"
_NO_LINES = "do_not_emit_stack_traces"


@contextlib.contextmanager
def lean(axes: Mapping[str, Mapping[int, str]]) -> Iterator[None]:
    """Within the block, a trace records neither if its length is open.

    There is no public setting for either. With a version of PyTorch that has none of the names, exports are slower and
    the same.

    Args:
        axes: Input name -> {axis: name} of the open axes.
    """
    import torch._dynamo
    import torch.fx

    with contextlib.ExitStack() as stack:
        if any(TIME in names.values() for names in axes.values()):
            if hasattr(torch._dynamo.config, _STORE):
                stack.enter_context(torch._dynamo.config.patch(_STORE, False))
            if hasattr(torch.fx.config, _NO_LINES):
                stack.enter_context(replaced(torch.fx.config, _NO_LINES, True))
        yield
