"""Makes an ONNX graph small, plain and the same on every export: the passes and their order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnx_ir.passes import common

from exporters.capture.factored_scan import ExpandFactored
from exporters.loops.expand import ExpandLoops
from exporters.loops.expand_halting import ExpandHalting
from exporters.passes.attention_masks import FIRST_WITH_ATTENTION, SilenceMaskedRows, WidenAttentionMasks
from exporters.passes.body_outputs import GiveBodyOutputsNodes
from exporters.passes.cut_padding import DropCutPadding
from exporters.passes.folding import FoldConstants
from exporters.passes.shared_weights import ShareWeights
from exporters.passes.single_entries import SqueezeSingleEntries
from exporters.passes.split_sizes import FIRST_WITH_COUNTS, GiveSplitsSizes
from exporters.passes.zero_states import DropZeroStates

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx_ir as ir
    from torch import nn

    from exporters.loops.scan import StepBody

_NO_LIMIT = 2**62


def passes_for(
    opset: int,
    bodies: Sequence[StepBody] = (),
    translate: Callable[[StepBody], ir.Model] | None = None,
    model: nn.Module | None = None,
) -> list[ir.passes.PassBase]:
    """The passes that every graph of PyTorch goes through, in their order.

    Args:
        opset: Of the graph.
        bodies: Of the loops for which the graph holds placeholders.
        translate: Makes the graph of such a body; None if there are none.
        model: Has the halting layers for which the graph holds placeholders; None if there are none.
    """
    return [
        *([ExpandHalting(model, opset)] if model is not None else []),
        SilenceMaskedRows(),
        FoldConstants(),
        *([ExpandLoops(bodies, translate)] if translate is not None else []),
        *([GiveSplitsSizes()] if opset < FIRST_WITH_COUNTS else []),
        ExpandFactored(),
        *([WidenAttentionMasks()] if opset >= FIRST_WITH_ATTENTION else []),
        DropZeroStates(),
        SqueezeSingleEntries(),
        DropCutPadding(),
        common.IdentityEliminationPass(),
        common.DeduplicateInitializersPass(size_limit=_NO_LIMIT),
        ShareWeights(),
        common.CommonSubexpressionEliminationPass(),
        common.RemoveUnusedNodesPass(),
        common.OutputFixPass(),
        GiveBodyOutputsNodes(),
        common.RemoveUnusedOpsetsPass(),
        common.ClearMetadataAndDocStringPass(),
    ]


def tidy(
    model: ir.Model,
    bodies: Sequence[StepBody] = (),
    translate: Callable[[StepBody], ir.Model] | None = None,
    traced: nn.Module | None = None,
) -> None:
    """Fold constants, merge equal initializers, drop what nothing uses and all debugging metadata, in place.

    Args:
        model: The graph.
        bodies: Of the loops for which it holds placeholders.
        translate: Makes the graph of such a body.
        traced: Has the halting layers for which it holds placeholders.
    """
    opset = model.opset_imports.get("")
    assert opset is not None
    for graph_pass in passes_for(
        opset, bodies, translate, traced
    ):  # one by one: `Sequential` would hide an ExportError
        graph_pass(model)
