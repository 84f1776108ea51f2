"""What a method is: a frozen options model that checks a model and then changes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from pydantic import BaseModel, ConfigDict

from compressor.errors import MethodError
from compressor.training.snapshots import NoSnapshots
from compressor.training.team import Alone, Team

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager

    import torch
    from torch import Tensor, nn

    from compressor.progress import Progress
    from compressor.report import Change, Skip
    from compressor.surgery.units.remembered_scores import RememberedScores
    from compressor.task.contract import Task
    from compressor.training.remembered import Remembered
    from compressor.training.snapshots import Snapshots


Batches = list[tuple[tuple["Tensor", ...], Any]]
"""(inputs, target) of training batches."""
_WITHOUT_BATCHES = "give batches, or set `compensate: false` and a score that is not measured on data"


@dataclass(frozen=True)
class State:
    """What one step hands to the next."""

    model: nn.Module
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    """Parameter name -> boolean mask of the parameter's shape, True = kept; held exactly by every later step."""
    structure: tuple[dict[str, Any], ...] = ()
    """JSON records from which the structure is rebuilt, in order, before weights are loaded."""


@dataclass(frozen=True)
class StepResult:
    """The new state and what was done."""

    state: State
    changes: tuple[Change, ...]
    skipped: tuple[Skip, ...] = ()
    history: tuple[dict[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    facts: Mapping[str, float] = field(default_factory=dict)
    """Numbers about what was made, such as the properties of a graph."""
    may_change_nothing: bool = False
    """The step keeps what it was given if nothing else is better, and its notes say so; otherwise that is an error."""


class Helpers(Team, Protocol):
    """A team whose other processes wait for a training to begin."""

    def together(self, training: Method, state: State, context: Context) -> AbstractContextManager[None]:
        """Within the block all processes carry out this training; the leader lets the others begin it."""


class NoHelpers(Alone):
    """One process."""

    def together(self, training: Method, state: State, context: Context) -> AbstractContextManager[None]:
        """There is nobody else."""
        return nullcontext()


NO_HELPERS: Final = NoHelpers()


@dataclass(frozen=True)
class Context:
    """What a step may use beside the model."""

    task: Task
    original: nn.Module
    """The model before the first step, in evaluation mode, on `device`; never changed. The teacher of distillation."""
    device: torch.device
    generator: torch.Generator
    """The only source of randomness (on the CPU)."""
    progress: Progress
    quick: bool = False
    """A rehearsal: a handful of batches instead of whole epochs."""
    snapshots: Snapshots = field(default_factory=NoSnapshots)
    """Where a long training of this step keeps how far it is."""
    team: Helpers = NO_HELPERS
    """Processes that share the work of a training."""
    remembered: Remembered | None = None
    """What `original` answered to the batches of earlier trainings, if there are many of them."""
    scores: RememberedScores | None = None
    """Of units in earlier recipes on the same task, if there are many of them."""

    def restarted_generator(self) -> torch.Generator:
        """A generator at the seed of the run; what is drawn from it leaves `generator` as it is."""
        import torch

        return torch.Generator().manual_seed(self.generator.initial_seed())

    def first_batches(self, count: int, *, hint: str = _WITHOUT_BATCHES) -> Batches:
        """The first training batches, from a generator of their own so that retraining is unaffected.

        Raises:
            MethodError: The task gives none.
        """
        batches = list(islice(self.task.batches(self.restarted_generator()), 2 if self.quick else count))
        if not batches:
            raise MethodError("the task's `batches` gave none, and this step measures on training batches", hint=hint)
        return batches

    def run_once(self, model: nn.Module, *, problem: str, hint: str, device: torch.device | None = None) -> Any:
        """The outputs of a copy of a changed model on the task's example at the typical length.

        Args:
            model: Left as it is.
            problem: What cannot be done if it does not run, such as "`rnn` cannot be replaced".
            hint: What the user can do about it.
            device: Where it runs; the context's by default.

        Raises:
            MethodError: It does not run; the message starts with `problem`.
        """
        from compressor.surgery.trial import run_once

        inputs = self.task.example(2, self.task.length)
        return run_once(model, inputs, device or self.device, problem=problem, hint=hint)

    def trace_examples(self) -> list[tuple[Tensor, ...]]:
        """Inputs to trace, and to compare at the typical length too."""
        return [trace_example(self.task), self.task.example(3, self.task.length)]


def trace_example(task: Task) -> tuple[Tensor, ...]:
    """Inputs at a short length, at which tracing is cheap."""
    return task.example(2, min(task.length, max(task.min_length, 3)))


def loop_examples(task: Task) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...] | None]:
    """`trace_example`, and inputs of more positions; None for a task of one length."""
    length = min(task.length, max(task.min_length, 3))
    longer = min(2 * length, task.max_length)
    return trace_example(task), task.example(2, longer) if longer > length else None


Control = Callable[[State, Context], StepResult]
"""Another way to do what a step does, to the same amount."""


class Method(BaseModel, ABC):
    """A step of a recipe. The fields are the recipe's options; `method` is the recipe word and the file's name.

    `apply` never changes the model that it is given: it works on a copy, so that a step that fails leaves the
    model of the step before untouched.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    summary: ClassVar[str]
    """One line for `compressor methods list`."""
    may_stream: ClassVar[bool] = False
    """The result may be exported as a step even if the original may not."""
    is_last: ClassVar[bool] = False
    """What it leaves has no layers that another step could change."""
    method: str

    def check(self, model: nn.Module) -> None:
        """Raise `MethodError` if the model has nothing for this step; called before any work is done."""

    def check_task(self, model: nn.Module, task: Task) -> None:
        """`check` for methods that need what the task says of the model; the pipeline calls this one."""
        self.check(model)

    def replaces(self, model: nn.Module, task: Task) -> Mapping[str, str]:
        """Name of a layer that this step replaces -> its kind, such as `attention`, if steps look for that kind."""
        return {}

    @property
    def looks_for(self) -> tuple[str, ...]:
        """Kinds of layers that this step does not find any more once an earlier one replaced them; see `replaces`."""
        return ()

    @property
    def restructures(self) -> bool:
        """Whether it removes or replaces parts of the model; then layers may not share weights before it."""
        return True

    def controls(self) -> Mapping[str, Control]:
        """Name -> what the report puts beside this step, the rest of the recipe carried out on it too."""
        return {}

    @property
    def needs_float64(self) -> bool:
        """On a device without float64 the step is carried out on the CPU; see `placing.carried_out`."""
        return True

    @property
    def needs_loss(self) -> bool:
        """Whether the task's loss is computed; a task without one is then refused before any work."""
        return False

    @property
    def rounding_block(self) -> int | None:
        """Weights of a row that share a scale in fewer than 8 bits, if the step leaves weights rounded so."""
        return None

    def refuse_options(self, *names: str, why: str) -> None:
        """Raise `ValueError` if one of these options differs from its default; a default written out is fine."""
        for name in names:
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"`{name}` {why}")

    @abstractmethod
    def apply(self, state: State, context: Context) -> StepResult:
        """Carry the step out; raises `MethodError` if it would change nothing."""
