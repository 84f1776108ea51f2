"""What is known of a model while one forward pass of it is watched, and afterwards.

Beside each storage of activations lies a storage of **labels** of the same layout: which atom (see `atoms`) an element
carries, 0 for none. Views, transposes, slices and in-place writes therefore need no rule at all: the same view of the
label storage is the answer.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.surgery.trace.atoms import Atoms, Ids, Role
from compressor.surgery.trace.constants import Constants
from compressor.surgery.trace.edges import input_name, output_name
from compressor.surgery.trace.feedback import Feedback
from compressor.surgery.trace.tables import Tables, decoded

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Crossing:
    """A tensor that carries units into or out of a module which becomes a file of its own."""

    module: str
    enters: bool
    index: int
    """Its place among the tensors of the module's arguments, or of its results."""
    labels: Tensor


@dataclass(frozen=True)
class Normalised:
    """What a normalisation takes its statistics over."""

    positions: Ids
    """The atoms of the features, 0 for a fixed one."""
    axis: int
    """Of the features, in what it gives."""


@dataclass(frozen=True)
class Entering:
    """A tensor that holds features of an input, along its last axis."""

    place: int | None
    """Of the input among the model's; None for an input of one of its modules."""
    whole: Tensor
    """The input."""
    tensor: Tensor
    positions: Ids
    """Which features of the input it holds."""


class Trace:
    """Which atoms the tensors of a forward pass carry; `atoms` holds what belongs together."""

    def __init__(self, model: nn.Module, inputs: Sequence[Tensor] = (), *, whole_blocks: bool = False) -> None:
        """Nothing is known yet.

        Args:
            model: The model that is watched.
            inputs: Its inputs.
            whole_blocks: See `parts`.
        """
        self.model = model
        self.whole_blocks = whole_blocks
        self.cut_by_size = False
        """A view took features apart, and nothing but `whole_blocks` said which part of them shrinks."""
        self.atoms = Atoms()
        self.units: dict[tuple[str, int, int], Ids] = {}
        """(module name, layer, direction) -> the atoms of its hidden units."""
        self.called: set[str] = set()
        self.norms: dict[str, Normalised] = {}
        """Name of a normalisation whose statistics run over several features -> what it normalises."""
        self.shifted: list[Ids] = []
        """Atoms whose features are not 0 any more if their unit is 0, such as behind a sigmoid."""
        self.summed: list[tuple[Ids, str]] = []
        """Atoms that are summed up, and where; they can only go if they are 0 then."""
        self.crossings: list[Crossing] = []
        self.feedback = Feedback()
        self.constants = Constants()
        self.alive: list[Any] = []
        """Tensors whose storages must not be used again."""
        self.paused = False
        self.labels: dict[int, Tensor] = {}
        self.answers: dict[int, Ids] = {}
        """Storage -> the atoms that an answer about all elements, as of `all`, depends on."""
        self.tensors = {
            name: tensor.detach()
            for name, tensor in [*model.named_parameters(), *model.named_buffers()]
            if tensor.is_floating_point()
        }
        self._parameters: dict[int, str] = {}
        for name, tensor in self.tensors.items():
            self._parameters.setdefault(tensor.untyped_storage().data_ptr(), name)
        self.tables = Tables(self.tensors, self.parameter_name, self.atoms_of)
        self.carried: set[int] = set()
        """Inputs that leave the model again as states."""
        self.read_of_inputs: dict[int, list[int]] = {}
        """Input -> which of its features the model reads, if it cuts it itself."""
        self._entering: dict[int, Entering] = {}
        """Storage -> the features of an input that it holds."""
        for place, tensor in enumerate(inputs):
            self._enter_whole(place, tensor)

    def shifted_atoms(self) -> Ids:
        """`shifted`, each once."""
        return np.unique(np.concatenate([np.zeros(0, np.int64), *self.shifted]))

    def may_be_state(self, tensor: Tensor) -> None:
        """Take a tensor that enters a module for a state if a recurrent layer does, as the model's inputs are."""
        if self.entering(tensor) is None:
            self._enter_whole(None, tensor)

    def entering(self, tensor: Tensor) -> Entering | None:
        """What a tensor holds of an input; None for any other one."""
        return self._entering.get(tensor.untyped_storage().data_ptr())

    def enter(self, entering: Entering) -> None:
        """Say that a tensor holds features of an input."""
        self._entering[entering.tensor.untyped_storage().data_ptr()] = entering

    def _enter_whole(self, place: int | None, tensor: Tensor) -> None:
        positions = np.arange(tensor.size(-1) if tensor.dim() else 0)
        self.enter(Entering(place, tensor, tensor, positions))

    def label_input(self, tensor: Tensor) -> Tensor | None:
        """Label an input that is used as a state, along its last axis; None for any other tensor."""
        entry = self.entering(tensor)
        if entry is None:
            return None
        axis, size = entry.whole.dim() - 1, entry.whole.size(-1)
        if entry.place is None:
            atoms = self.atoms.new(size)
        else:
            atoms = self.atoms.axis(input_name(entry.place), axis, size, "in")
            if len(entry.positions) < size:
                self.read_of_inputs[entry.place] = entry.positions.tolist()
        self.write(entry.tensor, torch.from_numpy(atoms[entry.positions]).expand(entry.tensor.size()))
        return self.read(tensor)

    def leaves_as_state(self, index: int, labels: Tensor) -> bool:
        """True for an output that carries the same units, at the same places, as an input of its shape."""
        for entry in self._entering.values():
            if entry.place is None:
                continue
            key = (input_name(entry.place), entry.whole.dim() - 1)
            if key not in self.atoms.axes or entry.tensor.size() != labels.size():
                continue
            atoms = self.atoms.axes[key][entry.positions]
            entering = np.broadcast_to(atoms, tuple(labels.size()))
            if np.array_equal(self.atoms.roots(entering), self.atoms.roots(labels.numpy())):
                self.atoms.bind(output_name(index), labels.dim() - 1, atoms, "in")
                self.carried.add(entry.place)
                return True
        return False

    def read(self, tensor: Tensor) -> Tensor | None:
        """The labels of a tensor, None if it carries none; a view, not a copy."""
        if tensor.layout is not torch.strided:
            return None
        storage = tensor.untyped_storage().data_ptr()
        if storage in self.labels:
            if self._is_reinterpreted(tensor):
                return None
            labels = self.labels[storage].as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
            return labels if bool(labels.any()) else None
        return self.tables.by_default(tensor)

    def _is_reinterpreted(self, tensor: Tensor) -> bool:
        """Whether a tensor reads its storage as elements of another size, as complex numbers; these have no labels."""
        storage = tensor.untyped_storage()
        return self.labels[storage.data_ptr()].numel() != storage.nbytes() // tensor.element_size()

    def write(self, tensor: Tensor, labels: Tensor | None) -> None:
        """Set the labels of a tensor; None is all 0."""
        storage = tensor.untyped_storage()
        if storage.data_ptr() in self.labels and self._is_reinterpreted(tensor):
            return
        if labels is None:
            if storage.data_ptr() not in self.labels:
                return
            labels = torch.zeros((), dtype=torch.int64)
        if storage.data_ptr() not in self.labels:
            self.alive.append(storage)
            self.labels[storage.data_ptr()] = torch.zeros(storage.nbytes() // tensor.element_size(), dtype=torch.int64)
        flat = self.labels[storage.data_ptr()]
        target = flat.as_strided(tensor.size(), tensor.stride(), tensor.storage_offset())
        if 0 in tensor.stride():
            return  # an expanded view; its base carries the labels already
        target.copy_(labels.expand(tensor.size()))

    def decode(self, view: Tensor, name: str) -> list[tuple[int, Ids] | None] | None:
        """Per axis of a view of a parameter: which axis of the parameter, and which positions.

        None for an axis of size 1 or stride 0. None as a whole if the view is no selection of positions (an axis
        that flattens two axes of the parameter).
        """
        return decoded(view, self.tensors[name])

    def atoms_of(self, name: str, axis: tuple[int, Ids] | None, role: Role) -> Ids:
        """The atoms of positions of a parameter along an axis of a view of it, as `decode` gives it."""
        if axis is None:
            return np.zeros(1, np.int64)
        index, positions = axis
        return self.atoms.axis(name, index, self.tensors[name].size(index), role)[positions]

    def parameter_name(self, tensor: Any) -> str | None:
        """The first name of the parameter or buffer that a tensor is a view of; None for an activation."""
        if not isinstance(tensor, Tensor) or tensor.layout is not torch.strided:
            return None
        return self._parameters.get(tensor.untyped_storage().data_ptr())

    def is_cast(self, copied: Tensor, original: Tensor) -> bool:
        """Take the copy of a whole parameter in another type, as autocast makes one, for the parameter itself."""
        name = self.parameter_name(original)
        if name is None or original.storage_offset() or not original.is_contiguous():
            return False
        if original.size() != self.tensors[name].size() or copied.stride() != original.stride():
            return False
        self._parameters[copied.untyped_storage().data_ptr()] = name
        return True

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Let operations through unwatched while this lasts."""
        paused, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = paused
