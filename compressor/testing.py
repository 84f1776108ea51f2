"""For tests and benchmarks of models, methods and exporters: a random task, and checks of what comes out.

task = RandomTask({"x": {0: "batch", 1: "time"}}, {"y": {0: "batch"}}, normal(5), model)
check_lossless(lambda model: my_method(model), model, task)
check_file(path, model, task)
"""

from __future__ import annotations

import copy
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compressor.errors import ParityError, TaskError
from compressor.measure import float_noise, parity
from compressor.measure.diagnosis import diagnose
from compressor.nn.recurrent.layers import parts, recurrent_modules
from compressor.runtimes.forward import open_forward
from compressor.task.closures import bind_closures
from compressor.task.contract import Task
from compressor.task.fidelity import FIDELITY, fidelity, tensors_of
from compressor.task.unlabelled import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from compressor.nn.attention.parts import AttentionParts
    from compressor.report import Parity
    from compressor.task.contract import Forward, Inputs, Outputs

    Axes = Mapping[str, Mapping[int, str]]
    Example = Callable[[int, int], Inputs]
    """(batch, length) -> inputs."""

_BATCH, _BATCHES, _SAMPLES = 8, 4, 64
_UNSEEN_BATCHES = (7, 4, 6)
"""None of those at which exporters compare."""
_LOSSLESS = {torch.float64: 1e-9, torch.float32: 1e-4}


def normal(*sizes: int) -> Example:
    """Examples of one input of normal values (B, T, *sizes)."""
    return lambda batch, length: (torch.randn(batch, length, *sizes),)


def random_lengths(batch: int, longest: int) -> Tensor:
    """Lengths (B,) of sequences, in no order, in 1..longest, often all of them below it."""
    return torch.randint(1, longest + 1, (batch,))


class RandomTask(Task):
    """Random inputs for a model. The metric, `fidelity`, says how closely the model's own outputs are kept.

    It is 1 - |outputs - own| / |own| of each sample, at least 0, where `own` is what `model` gives.
    """

    metric = FIDELITY

    def __init__(
        self,
        inputs: Axes,
        outputs: Axes,
        example: Example,
        model: nn.Module | None = None,
        *,
        length: int = 11,
        min_length: int = 1,
        max_length: int = 29,
        attention: Mapping[str, AttentionParts] | None = None,
    ) -> None:
        """Make a task.

        Args:
            inputs: As `Task.inputs`.
            outputs: As `Task.outputs`.
            example: Inputs at a batch size and length, from PyTorch's global generator, such as `normal(5)`.
            model: The model. Without one the task has no targets and no metric, which exporters do not need.
            length: As `Task.length`.
            min_length: As `Task.min_length`.
            max_length: As `Task.max_length`.
            attention: As `Task.attention`.
        """
        self.inputs, self.outputs = inputs, outputs
        self.length, self.min_length, self.max_length = length, min_length, max_length
        self.attention = attention or {}
        self._example, self._model = example, model
        if model is not None:
            bind_closures(model)

    def model(self) -> nn.Module:
        """A copy of the model; raises `TaskError` if there is none."""
        if self._model is None:
            raise TaskError("this random task has no model", hint="give RandomTask a `model`")
        return copy.deepcopy(self._model)

    def example(self, batch: int, length: int) -> Inputs:
        """Random inputs."""
        return self._example(batch, length)

    def batches(self, generator: torch.Generator) -> Iterable[tuple[Inputs, Any]]:
        """Four batches of eight samples, with the model's own outputs as the target."""
        for _ in range(_BATCHES):
            with seeded(int(torch.randint(2**31, (), generator=generator))):
                inputs = self.example(_BATCH, self.length)
            yield inputs, None if self._model is None else _outputs(self._model, inputs)

    def loss(self, outputs: Outputs, target: Any) -> Tensor:
        """Mean squared error over all outputs."""
        pairs = zip(tensors_of(outputs), target, strict=True)
        return torch.stack([(ours - theirs).float().square().mean() for ours, theirs in pairs]).sum()

    def evaluate(self, forward: Forward) -> Tensor:
        """The fidelity (N,) of 64 samples, the same every time."""
        model = self.model()
        with seeded(0):
            inputs = self.example(_SAMPLES, self.length)
        axes = [next(axis for axis, word in axes.items() if word == "batch") for axes in self.outputs.values()]
        return fidelity(tensors_of(forward(*inputs)), _outputs(model, inputs), axes).float()


def unseen_sizes(task: Task) -> tuple[tuple[int, int], ...]:
    """Pairs (batch, length) in the range of a task at which no exporter compares its file."""
    seen = {length for _, length in parity.points(task)}
    lengths = [length for length in range(task.min_length, task.max_length + 1) if length not in seen] or [task.length]
    picked = (lengths[0], lengths[len(lengths) // 2], lengths[-1])
    return tuple(dict.fromkeys(zip(_UNSEEN_BATCHES, picked, strict=True)))


def check_file(
    path: Path,
    model: nn.Module,
    task: Task,
    sizes: Sequence[tuple[int, int]] | None = None,
    *,
    atol: float = 1e-5,
    rtol: float = 1e-4,
    seed: int = 0,
) -> Parity:
    """Compare an exported file of any format with PyTorch, in the runtime of its format.

    Args:
        path: The file; a step file is run over whole sequences.
        model: What it was exported from, in evaluation mode.
        task: Gives the inputs.
        sizes: Pairs (batch, length); those of `unseen_sizes` by default.
        atol: Absolute tolerance.
        rtol: Relative tolerance.
        seed: Of the inputs.

    Raises:
        ParityError: They disagree; the message has a line for each size.
        ExportError: The file cannot be loaded.
    """
    generator = torch.Generator().manual_seed(seed)
    points = unseen_sizes(task) if sizes is None else sizes
    with closing(open_forward(path, task)) as forward:
        result = parity.check(
            model,
            forward,
            task,
            atol=atol,
            rtol=rtol,
            generator=generator,
            at=points,
            noise_on=lambda inputs: float_noise.measure(model, inputs),
        )
    if not result.passed:
        diagnosis = diagnose(result)
        raise ParityError(f"{path} disagrees with PyTorch: {diagnosis.of(result)}", hint=diagnosis.remedy)
    return result


def silence_units(model: nn.Module, count: int, *, seed: int = 0, same: bool = False) -> None:
    """Zero the weights of random units of every recurrent layer, in place, so that they give 0 at every position.

    Args:
        model: Its recurrent layers are `nn.RNN` (tanh or ReLU), `nn.GRU`, `nn.LSTM` or `LayerNormLSTM`.
        count: Units of each layer.
        seed: Of the choice.
        same: The same units in every layer, as models with tied layers need it.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in recurrent_modules(model).values():
            for part in parts(module):
                if same:
                    generator.manual_seed(seed)
                units = torch.randperm(module.hidden_size, generator=generator)[:count]
                weights = part.weights(module)
                rows = torch.cat([units + block * module.hidden_size for block in range(part.cell.gates.count)])
                places = {"gates": rows, "units": units} | ({} if "weight_hr" in weights else {"outputs": units})
                for local, weight in weights.items():
                    for axis, kind in enumerate(part.axes(part.names[local])):
                        if kind in places:
                            weight.index_fill_(axis, places[kind], 0.0)


def check_lossless(
    remove: Callable[[nn.Module], nn.Module], model: nn.Module, task: Task, *, count: int = 1, seed: int = 0
) -> nn.Module:
    """Check that a removal of units that give nothing makes the model smaller and changes none of its outputs.

    Args:
        remove: Gives the smaller model; it should remove `count` units of each recurrent layer, the weakest ones.
        model: It is not changed.
        task: Gives the inputs.
        count: Units of each recurrent layer that are silenced first, see `silence_units`.
        seed: Of the units and the inputs.

    Returns:
        The smaller model.

    Raises:
        AssertionError: The model is not smaller, or an output differs.
    """
    silenced = copy.deepcopy(model).eval()
    silence_units(silenced, count, seed=seed)
    smaller = remove(silenced).eval()
    before, after = (sum(part.numel() for part in each.parameters()) for each in (silenced, smaller))
    assert after < before, f"nothing was removed: {before} parameters before, {after} after"
    for batch, length in unseen_sizes(task):
        with seeded(seed):
            inputs = task.example(batch, length)
        for ours, own in zip(_outputs(smaller, inputs), _outputs(silenced, inputs), strict=True):
            torch.testing.assert_close(ours, own, atol=_LOSSLESS.get(own.dtype, 0.0), rtol=0.0)
    return smaller


def _outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    with torch.no_grad():
        return tensors_of(model(*inputs))
