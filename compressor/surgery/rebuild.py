"""Gives a fresh model the structure that a record describes, before weights are loaded. Nothing is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compressor.errors import CheckpointError, first_line
from compressor.nn.automaton import Automaton
from compressor.nn.record import of_another_task, of_another_version
from compressor.nn.seams import mark
from compressor.nn.structure import REPLACE, apply_record
from compressor.surgery.attention.head_records import KIND as HEADS
from compressor.surgery.attention.head_records import apply_heads_record
from compressor.surgery.depth.chains import KIND as CHAIN
from compressor.surgery.depth.chains import apply_chain_record
from compressor.surgery.depth.loops import KIND as HALTING
from compressor.surgery.depth.loops import apply_loop_record
from compressor.surgery.depth.mixing import KIND as LAYER_MIX
from compressor.surgery.depth.mixing import apply_mix_record
from compressor.surgery.depth.ties import KIND as TIE
from compressor.surgery.depth.ties import apply_tie_record
from compressor.surgery.trace.edges import KIND as EDGES
from compressor.surgery.trace.edges import Edges, narrow_inputs
from compressor.surgery.units.resize import refresh, replace, tensor_of
from compressor.surgery.units.sizes import KIND as SIZES
from compressor.surgery.units.sizes import apply_sizes_record

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from compressor.nn.attention.parts import AttentionParts

RESIZE = "resize"
AUTOMATON = "automaton"
"""The whole model is a table."""


def resize_record(shapes: Mapping[str, Iterable[int]]) -> dict[str, Any]:
    """The JSON record of a step that changed the shapes of parameters."""
    return {"kind": RESIZE, "shapes": {name: list(shape) for name, shape in shapes.items()}}


def automaton_record(automaton: Automaton) -> dict[str, Any]:
    """The JSON record of an automaton that replaces the whole model."""
    return {"kind": AUTOMATON, "record": automaton.record()}


def rebuild(
    model: nn.Module,
    structure: Iterable[Mapping[str, Any]],
    attention: Mapping[str, AttentionParts] | None = None,
) -> nn.Module:
    """Apply the records in order to `model`, in place; its weights are undefined afterwards. An automaton replaces it.

    Args:
        model: A fresh model of the task.
        structure: The records.
        attention: What the task says of attention that is not PyTorch's: only its attributes are ever set.

    Raises:
        CheckpointError: A record is of no known kind or does not fit the model.
    """
    for number, record in enumerate(structure):
        try:
            if record.get("kind") == AUTOMATON:
                model = Automaton.from_record(record["record"])
                continue
            _apply(model, record, attention or {})
        except CheckpointError:
            raise
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            TypeError,
            ValueError,
            RuntimeError,
            MemoryError,
        ) as error:
            raise CheckpointError(
                f"record {number} of the structure does not fit the model: {first_line(error)}",
                hint="load it with the task that it was made from, and with the version that wrote it",
            ) from error
    return model


def _apply(model: nn.Module, record: Mapping[str, Any], attention: Mapping[str, AttentionParts]) -> None:
    """One record, in place."""
    kind = record.get("kind")
    if kind == HEADS:
        apply_heads_record(model, record, attention)
        return
    apply = {
        REPLACE: apply_record,
        SIZES: apply_sizes_record,
        EDGES: _apply_edges,
        RESIZE: _apply_shapes,
        CHAIN: apply_chain_record,
        TIE: apply_tie_record,
        HALTING: apply_loop_record,
        LAYER_MIX: apply_mix_record,
    }.get(str(kind))
    if apply is None:
        raise of_another_version(f"the record holds a structure of kind {kind!r}, which this version does not know")
    apply(model, record)


def _apply_edges(model: nn.Module, record: Mapping[str, Any]) -> None:
    """Inputs and outputs follow from the sizes of the layers; modules cut what they are given."""
    edges = Edges.from_record(record)
    if edges.module:
        mark(_submodule(model, record)).cuts += (edges,)
    elif edges.starting:
        narrow_inputs(model, edges)


def _apply_shapes(model: nn.Module, record: Mapping[str, Any]) -> None:
    replacements = {}
    known = {name for name, _ in [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]}
    for name, shape in record["shapes"].items():
        if name not in known or not _is_shape(shape) or len(shape) != tensor_of(model, name).dim():
            raise of_another_task(f"the record resizes `{name}` to {shape}, which does not fit the model")
        old = tensor_of(model, name)
        replacements[id(old)] = torch.empty(tuple(shape), dtype=old.dtype, device=old.device)
    replace(model, replacements)
    refresh(model)


def _submodule(model: nn.Module, record: Mapping[str, Any]) -> nn.Module:
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if record["module"] not in modules:
        raise of_another_task(f"the record cuts the inputs of `{record['module']}`, which the model does not have")
    return modules[record["module"]]


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, list) and all(type(size) is int and 0 < size < 1 << 24 for size in shape)
