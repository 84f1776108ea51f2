"""What the user supplies: the model, its data and its metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import torch
    from torch import Tensor, nn

    from compressor.nn.attention.parts import AttentionParts

    Inputs = tuple[Tensor, ...]
    Outputs = Tensor | tuple[Tensor, ...]
    Forward = Callable[..., Outputs]
    """The model or an exported file, called as the model itself; all tensors on the CPU."""


@dataclass(frozen=True)
class Evaluation:
    """What `Task.evaluate` may return beside a plain float."""

    value: float | None = None
    """The metric; if it is left out it is the mean of `per_sample`."""
    per_sample: Tensor | None = None
    """Scores (N,) whose mean is the metric; gives the confidence interval."""
    groups: Tensor | Sequence[int | str] | None = None
    """For each of the `per_sample` scores, what it belongs to, such as the recording that a window was cut from. Scores
    of one group are not independent: the interval resamples whole groups."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Breakdown of the metric, such as accuracy per class."""


class Task(ABC):
    """Subclass this in a Python file and give the file to `compressor run --task FILE.py`.

    The class attributes say how the model's inputs and outputs are called and which of their axes are dynamic.
    `batch` and `time` are the axis names that the tool varies when it checks an exported file.
    """

    metric: str = "accuracy"
    higher_is_better: bool = True
    remark: str = ""
    """What every report says beside the metric, such as where its data come from."""
    inputs: Mapping[str, Mapping[int, str]] = {}
    """Name of each tensor that goes in -> {axis: name of the open axis}, in the order of `forward`'s parameters. Empty:
    names come from the parameters and structure (`state.0`), axes are found by calling the model at several sizes."""
    outputs: Mapping[str, Mapping[int, str]] = {}
    """The same for the tensors that come out, in the order in which they stand in the result."""
    modules: Sequence[str] | Mapping[str, str] = ()
    """Modules of the model that become files of their own, such as ("encoder", "decoder"); or name of the file -> name
    of the module. The model's `forward` runs them one after the other; `evaluate` gets them as `forward.encoder`."""
    batch_parts: Sequence[str] | None = None
    """What each element of a batch is, if `batches` gives more than (inputs, target): `input`, `target` or `ignore`."""
    target: str | None = None
    """The key of the target, if `batches` gives dictionaries; the other entries are keyword arguments of the model."""
    length: int = 32
    """A typical length of the `time` axis: latency and MACs are given for it."""
    min_length: int = 1
    max_length: int = 256
    """Shortest and longest length at which an exported file must agree with PyTorch."""
    ranges: Mapping[str, tuple[int, int]] = {}
    """Smallest and largest size of each further open axis; left out, sizes that the model takes are found."""
    attention: Mapping[str, AttentionParts] = {}
    """Glob of module names (or `re:` and a regular expression) -> where multi-head attention that is not PyTorch's has
    its parts. The first pattern that fits a module counts."""

    @abstractmethod
    def model(self) -> nn.Module:
        """The trained model, weights loaded, on the CPU."""

    @abstractmethod
    def example(self, batch: int, length: int) -> Inputs:
        """Valid inputs of the model at this batch size and length, random or real.

        A tensor, a tuple of positional arguments, a dictionary of keyword arguments, or `compressor.Call(x, mask=m)`
        for both. An argument may be any container of tensors, numbers, text and None.

        A further open axis (the length of a target, the width of a picture) is a further argument with a typical size
        of 2 or more as its default: `example(self, batch, length, target_length=5)`.
        """

    @abstractmethod
    def batches(self, generator: torch.Generator) -> Iterable[tuple[Inputs, Any]]:
        """One epoch of training batches, each (inputs, target); shuffle with `generator`. A `DataLoader` will do."""

    @abstractmethod
    def loss(self, outputs: Outputs, target: Any) -> Tensor:
        """The training loss of one batch, a scalar; `outputs` is what the model's own `forward` returns."""

    @abstractmethod
    def evaluate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The metric on held-out data: a float, per-sample scores (N,), or an `Evaluation`.

        `forward` is the PyTorch model in evaluation mode or an exported file; no gradients are kept. It may take a
        second argument `limit`: then it evaluates on that many samples, or on all if `limit` is None. A rehearsal
        (`--quick`) gives one.
        """

    def validate(self, forward: Forward) -> float | Tensor | Evaluation:
        """The metric by which retraining stops early; give other data than `evaluate` if there is some."""
        return self.evaluate(forward)
