"""Follows every hidden unit and feature through a model, element by element.

One forward pass on a small example is watched below autograd, where everything is a few dozen tensor operations.
Beside each storage of activations lies a storage of **labels** of the same layout: which atom (see `atoms`) an element
carries, 0 for none. Views, transposes, slices and in-place writes therefore need no rule at all: the same view of the
label storage is the answer. Operations that make new storage have a rule each; one without a rule pins what it touches,
with the place in the user's code, so that nothing is followed wrongly.

Recurrent modules are one rule: their units are atoms, tied to the gate rows of their weights, to their outputs, to
`h_n` and `c_n`, and to the initial states that they are given.

Why not Torch-Pruning's dependency graph (1.6.1), which is the field's usual base: it follows autograd's edges without
positions of axes, has no rule for recurrent modules that is right, and does not see `h_n` and `c_n`.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from compressor.surgery.trace.atoms import Atoms, Ids
from compressor.surgery.trace.edges import input_name, output_name
from compressor.surgery.trace.module_rules import wrapped_modules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

aten = torch.ops.aten

# Operations that move elements into new storage: run on the labels as they are. Value: positions of the arguments that
# carry elements (the others, such as indices, are used as they are).
_MOVES: dict[Any, tuple[int, ...]] = {
    aten.clone.default: (0,),
    aten.contiguous.default: (0,),
    aten.cat.default: (0,),
    aten.stack.default: (0,),
    aten.index.Tensor: (0,),
    aten.index_select.default: (0,),
    aten.gather.default: (0,),
    aten.flip.default: (0,),
    aten.roll.default: (0,),
    aten.repeat.default: (0,),
    aten.tril.default: (0,),
    aten.triu.default: (0,),
    aten.masked_select.default: (0,),
    aten.slice_scatter.default: (0, 1),
    aten.select_scatter.default: (0, 1),
    aten.index_put.default: (0, 2),
    aten.index_put_.default: (0, 2),
    aten.copy_.default: (0, 1),
    aten._pack_padded_sequence.default: (0,),
}
_SAME_SHAPE = {aten._to_copy.default, aten.cumsum.default, aten.masked_fill.Scalar, aten.masked_fill_.Scalar}
_LIKE = {
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.empty_like.default,
}
_NORMALISING = {aten._softmax.default, aten._log_softmax.default}
_REDUCTIONS = {
    aten.sum.dim_IntList,
    aten.mean.dim,
    aten.amax.default,
    aten.amin.default,
    aten.max.dim,
    aten.min.dim,
    aten.logsumexp.default,
    aten.linalg_vector_norm.default,
    aten.sum.default,
    aten.mean.default,
    aten.max.default,
    aten.min.default,
}
_SKIPPING_ZEROS = {aten.sum.dim_IntList, aten.sum.default, aten.linalg_vector_norm.default}
"""Reductions that are the same without elements that are 0."""
_POOLS = {
    aten.max_pool2d_with_indices.default: 2,
    aten.max_pool3d_with_indices.default: 3,
    aten.avg_pool2d.default: 2,
    aten.avg_pool3d.default: 3,
    aten._adaptive_avg_pool2d.default: 2,
    aten._adaptive_avg_pool3d.default: 3,
    aten.adaptive_max_pool2d.default: 2,
    aten.adaptive_max_pool3d.default: 3,
}
"""Pooling channel by channel, and over how many of the last axes; those over one axis arrive as 2-D ones."""
_SUMS = {aten.add, aten.add_, aten.sub, aten.sub_}
_KEEPS_ZERO = (
    _SUMS
    | {
        getattr(aten, name + suffix)
        for name in (
            "mul",
            "div",
            "neg",
            "relu",
            "tanh",
            "leaky_relu",
            "elu",
            "hardtanh",
            "abs",
            "sin",
            "square",
            "sqrt",
        )
        for suffix in ("", "_")
    }
    | {aten.gelu, aten.silu, aten.silu_, aten.where, aten.maximum, aten.minimum, aten.sign, aten.native_dropout}
)
"""Element-wise operations that give 0 where their units are 0 (a sum only if both sides are units)."""
_TORCH_FOLDER = str(Path(torch.__file__).parent)
_OUR_FOLDER = str(Path(__file__).parents[1])


class Tracer(TorchDispatchMode):
    """Watches one forward pass of a model; afterwards `atoms` holds what belongs together.

    Args:
        model: A copy on the CPU in evaluation mode; its recurrent modules' `forward` is wrapped while tracing.
    """

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Not wrapped for torch.compile, which is never used here and whose import takes seconds."""
        return False

    def __init__(self, model: nn.Module) -> None:
        """Prepare for `model`; nothing is run yet."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.model = model
        self.atoms = Atoms()
        self.units: dict[tuple[str, int, int], Ids] = {}
        """(module name, layer, direction) -> the atoms of its hidden units."""
        self.called: set[str] = set()
        self.norms: dict[str, Ids] = {}
        """Name of a layer normalisation -> the atoms of the positions that it normalises, 0 for a fixed feature."""
        self._shifted: list[Ids] = []
        self._summed: list[tuple[Ids, str]] = []
        """Atoms that are summed up, and where; they can only go where they are 0 then."""
        self._inputs: dict[int, tuple[int, Tensor]] = {}
        self._labels: dict[int, Tensor] = {}
        self.alive: list[Any] = []
        self.paused = False
        self._parameters: dict[int, str] = {}
        self._tensors = {
            name: tensor.detach()
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]
            if tensor.is_floating_point()
        }
        for name, tensor in self._tensors.items():
            self._parameters.setdefault(tensor.untyped_storage().data_ptr(), name)

    def shifted_atoms(self) -> Ids:
        """Atoms whose features are not 0 any more where their unit is 0, such as behind a sigmoid."""
        return np.unique(np.concatenate([np.zeros(0, np.int64), *self._shifted]))

    def run(self, inputs: Sequence[Tensor]) -> None:
        """Trace `model(*inputs)` and pin what leaves the model as an output, states that enter it too excepted."""
        inputs = [tensor.clone() for tensor in inputs]
        self._inputs = {tensor.untyped_storage().data_ptr(): (i, tensor) for i, tensor in enumerate(inputs)}
        with torch.no_grad(), wrapped_modules(self), without_fast_path(), self:
            outputs = self.model(*inputs)
        shifted = self.atoms.roots(self.shifted_atoms())
        for ids, reason in self._summed:
            self.atoms.pin(ids[np.isin(self.atoms.roots(ids), shifted[shifted != 0])], reason)
        for index, output in enumerate(part for part in tree_flatten(outputs)[0] if isinstance(part, Tensor)):
            labels = self.read(output)
            if labels is not None and not self._leaves_as_state(index, labels):
                self.atoms.pin(labels.numpy(), f"it is part of the model's output {index}, whose size would change")

    def label_input(self, tensor: Tensor) -> Tensor | None:
        """Label a model input that is used as a state, along its last axis; None for any other tensor."""
        found = self._inputs.get(tensor.untyped_storage().data_ptr())
        if found is None:
            return None
        index, whole = found
        atoms = self.atoms.axis(input_name(index), whole.dim() - 1, whole.size(-1), "in")
        self.write(whole, torch.from_numpy(atoms).expand(whole.size()))
        return self.read(tensor)

    def _leaves_as_state(self, index: int, labels: Tensor) -> bool:
        """True for an output that carries the same units, at the same places, as an input of its shape."""
        for position, whole in self._inputs.values():
            key = (input_name(position), whole.dim() - 1)
            if key not in self.atoms.axes or whole.size() != labels.size():
                continue
            entering = np.broadcast_to(self.atoms.axes[key], tuple(whole.size()))
            if np.array_equal(self.atoms.roots(entering), self.atoms.roots(labels.numpy())):
                self.atoms.bind(output_name(index), whole.dim() - 1, self.atoms.axes[key], "in")
                return True
        return False

    # --- the watch -------------------------------------------------------------------------------------------------

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self.paused:
            return func(*args, **kwargs)
        before = self._argument_labels(func, args, kwargs)
        result = func(*args, **kwargs)
        with self.pause():
            self._follow(func, args, kwargs, before, result)
        return result

    def _argument_labels(self, func: Any, args: Any, kwargs: Any) -> list[Tensor | None]:
        """Labels of the tensor arguments, copied before an in-place operation changes them."""
        tensors = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, Tensor)]
        self.alive.append(tensors)
        with self.pause():
            labels = [self.read(tensor) for tensor in tensors]
            if func._schema.is_mutable:
                labels = [None if label is None else label.clone() for label in labels]
        return labels

    def _follow(self, func: Any, args: Any, kwargs: Any, before: list[Tensor | None], result: Any) -> None:
        tensors = [part for part in tree_flatten((args, kwargs))[0] if isinstance(part, Tensor)]
        outputs = [part for part in tree_flatten(result)[0] if isinstance(part, Tensor)]
        self.alive.append(outputs)
        rule = _RULES.get(func)
        if rule is not None:
            rule(self, args, kwargs, outputs)
        elif func in _MOVES:
            self._move(func, args, kwargs, outputs)
        elif func in _SAME_SHAPE or func in _LIKE:
            self.write(outputs[0], before[0])
        elif func in _NORMALISING:
            self._normalise(before[0], [args[1]], outputs[0], func)
        elif func in _REDUCTIONS:
            self._reduce(func, before[0], args, outputs)
        elif func in _POOLS:
            self._pool(before[0], _POOLS[func], outputs[0])
        elif self._is_view(tensors, outputs) and not func._schema.is_mutable:
            pass
        elif torch.Tag.pointwise in func.tags or func in (aten.dropout.default, aten.native_dropout.default):
            self._pointwise(func, tensors, before, outputs)
        else:
            self._unknown(func, tensors, before)

    def _is_view(self, tensors: list[Tensor], outputs: list[Tensor]) -> bool:
        storages = {tensor.untyped_storage().data_ptr() for tensor in tensors if tensor.numel()}
        return bool(outputs) and all(o.untyped_storage().data_ptr() in storages for o in outputs if o.numel())

    # --- labels ----------------------------------------------------------------------------------------------------

    def read(self, tensor: Tensor) -> Tensor | None:
        """The labels of a tensor, None where it carries none; a view, not a copy."""
        if tensor.layout is not torch.strided:
            return None
        storage = tensor.untyped_storage().data_ptr()
        if storage in self._labels:
            labels = self._labels[storage].as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
            return labels if bool(labels.any()) else None
        if storage in self._parameters:
            return self._read_parameter(tensor, self._parameters[storage])
        return None

    def write(self, tensor: Tensor, labels: Tensor | None) -> None:
        """Set the labels of a tensor; None is all 0."""
        storage = tensor.untyped_storage()
        if labels is None:
            if storage.data_ptr() not in self._labels:
                return
            labels = torch.zeros((), dtype=torch.int64)
        if storage.data_ptr() not in self._labels:
            self.alive.append(storage)
            self._labels[storage.data_ptr()] = torch.zeros(storage.nbytes() // tensor.element_size(), dtype=torch.int64)
        flat = self._labels[storage.data_ptr()]
        target = flat.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        if 0 in tensor.stride():
            return  # an expanded view; its base carries the labels already
        target.copy_(labels.expand(tensor.size()))

    def _read_parameter(self, tensor: Tensor, name: str) -> Tensor | None:
        """A parameter used as an activation: labelled along its last axis that is longer than 1."""
        axes = self._decode(tensor, name)
        for view_axis in reversed(range(tensor.dim())):
            if axes is not None and axes[view_axis] is not None:
                atoms = torch.from_numpy(self._atoms_of(name, axes[view_axis], "out"))
                shape = [1] * tensor.dim()
                shape[view_axis] = -1
                return atoms.view(shape).expand(tensor.size())
        return None

    def _decode(self, view: Tensor, name: str) -> list[tuple[int, Ids] | None] | None:
        """Per axis of a view of a parameter: which axis of the parameter, and which positions.

        None for an axis of size 1 or stride 0. None as a whole where the view is no selection of positions (an axis
        that flattens two axes of the parameter).
        """
        parameter = self._tensors[name]
        rest = view.storage_offset() - parameter.storage_offset()
        if rest < 0 or not parameter.is_contiguous():
            return None
        start = []
        for stride in parameter.stride():
            start.append(rest // stride if stride else 0)
            rest -= start[-1] * stride
        axes: list[tuple[int, Ids] | None] = []
        for size, stride in zip(view.size(), view.stride(), strict=True):
            if size == 1 or stride == 0:
                axes.append(None)
                continue
            found = None
            for axis in range(parameter.dim()):
                length, step = parameter.size(axis), parameter.stride(axis)
                if length > 1 and stride % step == 0 and start[axis] + (size - 1) * (stride // step) < length:
                    found = (axis, int(start[axis]) + np.arange(size, dtype=np.int64) * (stride // step))
                    break
            if found is None:
                return None
            axes.append(found)
        return axes

    def _atoms_of(self, name: str, axis: tuple[int, Ids] | None, role: Any) -> Ids:
        if axis is None:
            return np.zeros(1, np.int64)
        index, positions = axis
        return self.atoms.axis(name, index, self._tensors[name].size(index), role)[positions]

    def parameter_name(self, tensor: Any) -> str | None:
        """The first name of the parameter or buffer that a tensor is a view of; None for an activation."""
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            return None
        return self._parameters.get(tensor.untyped_storage().data_ptr())

    # --- rules -----------------------------------------------------------------------------------------------------

    def _unknown(self, func: Any, tensors: list[Tensor], before: list[Tensor | None]) -> None:
        labelled = [label for label in before if label is not None]
        for label in labelled:
            self.atoms.pin(label.numpy(), f"`{func.name()}` at {_place()} is not followed")
        for tensor in tensors:
            name = self.parameter_name(tensor)
            if name is not None:
                for axis in range(self._tensors[name].dim()):
                    atoms = self.atoms.axis(name, axis, self._tensors[name].size(axis), "out")
                    self.atoms.pin(atoms, f"`{func.name()}` at {_place()} is not followed")

    def _move(self, func: Any, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        arguments = list(args)
        carried = False
        for position in _MOVES[func]:
            value = arguments[position]
            if isinstance(value, Tensor):
                labels = self.read(value)
                carried = carried or labels is not None
                arguments[position] = self._dense(value, labels)
            else:
                parts = [(part, self.read(part)) for part in value]
                carried = carried or any(labels is not None for _, labels in parts)
                arguments[position] = [self._dense(part, labels) for part, labels in parts]
        target = outputs[0]
        if not carried and target.untyped_storage().data_ptr() not in self._labels:
            return
        moved = func(*arguments, **{k: v for k, v in kwargs.items() if k != "dtype"})
        self.write(target, moved[0] if isinstance(moved, tuple) else moved)

    def _dense(self, tensor: Tensor, labels: Tensor | None) -> Tensor:
        return torch.zeros(tensor.size(), dtype=torch.int64) if labels is None else labels.clone()

    def _pointwise(self, func: Any, tensors: list[Tensor], before: list[Tensor | None], outputs: list[Tensor]) -> None:
        shape = outputs[0].size()
        present = [label.expand(shape) for label in before if label is not None and label.numel()]
        if not present:
            for output in outputs:
                self.write(output, None)
            return
        labels = torch.stack(present).amax(0)
        for other in present:
            self.atoms.join(labels.numpy(), other.numpy())
        for tensor, own in zip(tensors, before, strict=True):
            self._pin_fixed_partner(tensor, own, labels)
        added = func.overloadpacket in _SUMS and len(present) < 2
        if added or func.overloadpacket not in _KEEPS_ZERO:
            self._shifted.append(np.unique(labels.numpy()))
        for output in outputs:
            self.write(output, labels)

    def _pin_fixed_partner(self, tensor: Tensor, own: Tensor | None, labels: Tensor) -> None:
        """A partner that has a value of its own for every unit, but is nobody's feature, keeps its size."""
        full = torch.zeros((), dtype=torch.int64) if own is None else own
        padded = [1] * (labels.dim() - tensor.dim()) + list(tensor.size())
        strides = [0] * (labels.dim() - tensor.dim()) + list(tensor.stride())
        varies = [_varies(labels, axis) for axis in range(labels.dim())]
        if not any(v and size > 1 and stride for v, size, stride in zip(varies, padded, strides, strict=True)):
            return
        alone = labels[(full.expand(labels.size()) == 0) & (labels != 0)]
        if alone.numel():
            self.atoms.pin(
                alone.numpy(), f"at {_place()} it is combined with a tensor of fixed size {tuple(tensor.size())}"
            )

    def _normalise(self, labels: Tensor | None, axes: Sequence[int], output: Tensor, func: Any) -> None:
        if labels is not None and any(_varies(labels, axis) for axis in axes):
            self.atoms.pin(labels.numpy(), f"`{func.name()}` at {_place()} normalises across it and others")
        self.write(output, labels)

    def _reduce(self, func: Any, labels: Tensor | None, args: Any, outputs: list[Tensor]) -> None:
        if labels is None:
            return
        position = 2 if func is aten.linalg_vector_norm.default else 1
        axes = args[position] if len(args) > position and args[position] is not None else list(range(labels.dim()))
        axes = [axes] if isinstance(axes, int) else list(axes) or list(range(labels.dim()))
        mixed = [axis % labels.dim() for axis in axes if _mixes(labels, axis)]
        beside = [axis for axis in range(labels.dim()) if axis not in mixed and _varies(labels, axis)]
        if mixed and beside:
            # As where directions in (T, B, 2, H) are added: what meets goes together.
            labels = self._joined(labels, mixed)
        elif mixed and func in _SKIPPING_ZEROS:
            # A sum over all units, which those that are left make smaller: like a product with a matrix of ones.
            self._summed.append((np.unique(labels.numpy()), f"`{func.name()}` at {_place()} sums it and others"))
            return
        elif mixed:
            self.atoms.pin(labels.numpy(), f"`{func.name()}` at {_place()} reduces across it and others")
            return
        for output in outputs:
            if output.is_floating_point():
                self.write(output, labels.amax(dim=axes, keepdim=output.dim() == labels.dim()))

    def _joined(self, labels: Tensor, axes: Sequence[int]) -> Tensor:
        """Labels that were joined along axes, where elements without a unit are padding."""
        highest = labels.amax(dim=list(axes), keepdim=True).expand(labels.size())
        self.atoms.join(labels.numpy(), highest.numpy())
        return torch.where(labels == 0, labels, highest)

    def _glu(self, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        """The first half times the sigmoid of the second one, along an axis."""
        labels, axis = self.read(args[0]), args[1] if len(args) > 1 else -1
        if labels is None:
            return
        halves = labels.chunk(2, axis)
        self.atoms.join(halves[0].numpy(), halves[1].numpy())
        self.write(outputs[0], torch.maximum(*halves))

    def _pool(self, labels: Tensor | None, spatial: int, output: Tensor) -> None:
        """Pooling over the last `spatial` axes, along which no two units may meet; 0 stays 0."""
        axes = list(range(-spatial, 0))
        if labels is not None and any(_varies(labels, axis) for axis in axes):
            self.atoms.pin(labels.numpy(), f"the pooling at {_place()} slides over it")
        elif labels is not None:
            self.write(output, labels.amax(dim=axes, keepdim=True))

    def _contract(self, left: Tensor, right: Tensor, output: Tensor) -> None:
        """Matrix product (..., M, K) x (..., K, N): joins along K, hands labels on along M and N."""
        left_inner, left_outer = self._sides(left, -1, -2)
        right_inner, right_outer = self._sides(right, -2, -1)
        if left_inner is not None or right_inner is not None:
            self.join_inner(left, left_inner, right, right_inner)
        if left_outer is not None and right_outer is not None:
            self.atoms.pin(left_outer.numpy(), f"the matrix product at {_place()} has units on both sides")
        if right_outer is not None:
            self.write(output, right_outer.unsqueeze(-2).expand(output.size()))
        elif left_outer is not None:
            self.write(output, left_outer.unsqueeze(-1).expand(output.size()))
        else:
            self.write(output, None)

    def _sides(self, tensor: Tensor, inner: int, outer: int) -> tuple[Tensor | None, Tensor | None]:
        """Labels along the contracted axis (..., other, K) and along the kept axis (..., kept).

        A parameter has both; an activation has one or the other.
        """
        name = self.parameter_name(tensor)
        if name is not None:
            axes = self._decode(tensor, name)
            if axes is None:
                self._unknown(aten.mm.default, [tensor], [])
                return None, None
            kept = torch.from_numpy(self._atoms_of(name, axes[outer], "out"))
            contracted = torch.from_numpy(self._atoms_of(name, axes[inner], "in"))
            return contracted.view(1, -1), kept
        labels = self.read(tensor)
        if labels is None:
            return None, None
        if not _varies(labels, outer % labels.dim()) or _varies(labels, inner % labels.dim()):
            return labels.movedim(inner, -1), None
        return None, labels.select(inner, 0)

    def join_inner(self, left: Tensor, a: Tensor | None, right: Tensor, b: Tensor | None) -> None:
        """Join what meets in a matrix product: labels `a` (..., M, K) of `left` and `b` (..., N, K) of `right`."""
        if a is None or b is None:
            present, own, size = (b, right, left.size(-1)) if a is None else (a, left, right.size(-2))
            assert present is not None
            if size > 1 and self.parameter_name(own) is None:
                self.atoms.pin(
                    present.numpy(), f"the matrix product at {_place()} pairs it with a tensor of fixed size {size}"
                )
            return
        for own, labels, axis, other in ((left, a, -1, right), (right, b, -2, left)):
            if self.parameter_name(own) is None and self.parameter_name(other) is not None:
                self._pin_mixed(own.movedim(axis, -1).reshape(-1, own.size(axis)), labels)
        self.atoms.join(a.numpy(), b[..., :1, :].numpy())
        self.atoms.join(a[..., :1, :].numpy(), b.numpy())

    def _pin_mixed(self, values: Tensor, labels: Tensor) -> None:
        """A position (column) that is a unit in some rows and a fixed feature in others stays.

        Rows of one constant are padding, which shrinks with the rest.
        """
        mixed = labels.reshape(values.size())
        fixed = mixed == 0
        columns = fixed.any(0) & ~fixed.all(0)
        if bool(columns.any()) and bool((values[fixed] != values[fixed][0]).any()):
            self.atoms.pin(mixed[:, columns].numpy(), f"at {_place()} it shares a position with a fixed feature")

    def _add_bias(self, output: Tensor, bias: Tensor | None) -> None:
        if bias is None:
            return
        labels = self.read(output)
        own = self.read(bias)
        if labels is not None and own is not None:
            self.atoms.join(labels.numpy(), own.expand(labels.size()).numpy())
        elif labels is not None:
            self._pin_fixed_partner(bias, own, labels)
        elif own is not None:
            self.write(output, own.expand(output.size()))

    def _mm(self, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        self._contract(args[0], args[1], outputs[0])

    def _addmm(self, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        self._contract(args[1], args[2], outputs[0])
        self._add_bias(outputs[0], args[0])

    def _linear(self, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        inputs, weight = args[0], args[1]
        flat = inputs.reshape(-1, inputs.size(-1)) if self.read(inputs) is None else inputs
        if flat.dim() != 2:
            labels = self.read(flat)
            assert labels is not None
            flat = torch.empty(inputs.numel() // inputs.size(-1), inputs.size(-1))
            self.alive.append(flat)
            self.write(flat, labels.reshape(flat.size()))
        self._contract(flat, weight.t(), outputs[0].view(-1, outputs[0].size(-1)))
        self._add_bias(outputs[0], args[2] if len(args) > 2 else None)

    def _convolution(self, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        inputs, weight, bias, *_, transposed, _, groups = args
        name = self.parameter_name(weight)
        labels = self.read(inputs)
        if name is None or self._decode(weight, name) is None:
            self._unknown(aten.convolution.default, [inputs, weight], [labels])
            return
        out_axis, in_axis = (1, 0) if transposed else (0, 1)
        produced = self.atoms.axis(name, out_axis, weight.size(out_axis), "out")
        consumed = self.atoms.axis(name, in_axis, weight.size(in_axis), "in")
        if labels is not None and any(_varies(labels, axis) for axis in range(2, labels.dim())):
            self.atoms.pin(labels.numpy(), f"the convolution at {_place()} slides over it")
        elif labels is not None and groups == 1:
            channels = labels.movedim(1, -1).reshape(-1, labels.size(1)).numpy()
            self.atoms.join(channels, consumed)
        elif labels is not None:
            self._grouped(labels, produced, groups, transposed)
        if not (transposed and groups > 1):
            shape = [1, -1] + [1] * (outputs[0].dim() - 2)
            self.write(outputs[0], torch.from_numpy(produced).view(shape).expand(outputs[0].size()))
        if bias is not None:
            bias_name = self.parameter_name(bias)
            if bias_name is not None and len(produced) == bias.numel():
                self.atoms.join(self.atoms.axis(bias_name, 0, bias.numel(), "out"), produced)

    def _grouped(self, labels: Tensor, produced: Ids, groups: int, transposed: bool) -> None:
        channels = labels.movedim(1, -1).reshape(-1, labels.size(1)).numpy()
        if groups == labels.size(1) and not transposed and len(produced) == groups:
            self.atoms.join(channels, produced)  # depthwise: channel in = channel out
        else:
            self.atoms.pin(channels, f"the grouped convolution at {_place()} keeps its groups")

    def _batch_norm(self, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        labels = self.read(args[0])
        if labels is not None:
            channels = labels.movedim(1, -1).reshape(-1, labels.size(1)).numpy()
            for tensor in args[1:5]:
                name = self.parameter_name(tensor)
                if name is not None:
                    self.atoms.join(channels, self.atoms.axis(name, 0, tensor.numel(), "out"))
        self.write(outputs[0], labels)

    def _layer_norm(self, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        labels = self.read(args[0])
        if labels is not None:
            self.atoms.pin(labels.numpy(), f"the normalisation at {_place()} takes its mean over it and others")
        self.write(outputs[0], labels)

    def _embedding(self, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        name = self.parameter_name(args[0])
        if name is not None:
            atoms = torch.from_numpy(self.atoms.axis(name, 1, args[0].size(1), "out"))
            self.write(outputs[0], atoms.expand(outputs[0].size()))

    def _pad(self, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        labels = self.read(args[0])
        if labels is not None:
            padded = aten.constant_pad_nd.default(labels.clone(), args[1], 0)
            axes = [axis for axis in range(labels.dim()) if not _varies(labels, axis)]
            self.write(outputs[0], _filled(padded, axes))

    def _pad_packed(self, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        labels = self.read(args[0])
        if labels is not None:
            moved = aten._pad_packed_sequence.default(labels.clone(), args[1], args[2], 0, args[4])
            self.write(outputs[0], _filled(moved[0], [0, 1]))

    def _attention(self, args: Any, kwargs: Any, outputs: list[Tensor]) -> None:
        """Scaled dot-product attention: the scale depends on the number of features of queries and keys."""
        for tensor in args[:2]:
            labels = self.read(tensor)
            if labels is not None:
                self.atoms.pin(labels.numpy(), f"the attention at {_place()} scales by the number of its features")
        values = self.read(args[2])
        if values is not None:
            self.write(outputs[0], values.select(-2, 0).unsqueeze(-2).expand(outputs[0].size()))

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Let operations through unwatched while this lasts."""
        paused, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = paused


def _varies(labels: Tensor, axis: int) -> bool:
    """True where the labels differ along an axis."""
    return labels.size(axis) > 1 and bool((labels != labels.narrow(axis, 0, 1)).any())


def _mixes(labels: Tensor, axis: int) -> bool:
    """True where different units meet along an axis; elements without a unit between them are padding."""
    low = torch.where(labels == 0, torch.iinfo(torch.int64).max, labels).amin(axis)
    high = labels.amax(axis)
    return bool(((high != 0) & (high != low)).any())


def _filled(labels: Tensor, axes: Sequence[int]) -> Tensor:
    """Padded steps belong to the units that the other steps belong to: they shrink with them."""
    if not axes:
        return labels
    return torch.where(labels == 0, labels.amax(dim=list(axes), keepdim=True), labels)


def _place() -> str:
    """File and line of the user's code that is running: the innermost frame outside torch and this package."""
    frame = sys._getframe()
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith((_TORCH_FOLDER, _OUR_FOLDER, "<")):
            return f"{Path(file).name}:{frame.f_lineno}"
        if frame.f_back is None:
            break
        frame = frame.f_back
    return "an unknown place"


@contextmanager
def without_fast_path() -> Iterator[None]:
    """`nn.MultiheadAttention` as separate operations, not as one fused kernel."""
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


_RULES: dict[Any, Callable[..., None]] = {
    aten.mm.default: Tracer._mm,
    aten.bmm.default: Tracer._mm,
    aten.addmm.default: Tracer._addmm,
    aten.baddbmm.default: Tracer._addmm,
    aten.linear.default: Tracer._linear,
    aten.convolution.default: Tracer._convolution,
    aten.native_batch_norm.default: Tracer._batch_norm,
    aten._native_batch_norm_legit_no_training.default: Tracer._batch_norm,
    aten.native_layer_norm.default: Tracer._layer_norm,
    aten.glu.default: Tracer._glu,
    aten.embedding.default: Tracer._embedding,
    aten.constant_pad_nd.default: Tracer._pad,
    aten._pad_packed_sequence.default: Tracer._pad_packed,
    aten._scaled_dot_product_flash_attention_for_cpu.default: Tracer._attention,
    aten._scaled_dot_product_efficient_attention.default: Tracer._attention,
}
