"""`torchrun ... compressor run`: the first process carries out the recipe, the others help with its trainings.

The others wait until the first one begins a training, get the model as it is then, and train with it; nothing but the
first writes anything. All processes are started by the same command on the same task, so what they send each other is
their own.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import distributed

from compressor.errors import CompressorError, UsageError
from compressor.methods.base import NO_HELPERS, Context
from compressor.methods.retrain import Retrain
from compressor.pipeline.fingerprints import of_model
from compressor.pipeline.forms import StateForm
from compressor.progress import Silent
from compressor.training.team import shared_sums

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import Tensor, nn

    from compressor.methods.base import Helpers, Method, State
    from compressor.pipeline.parts import Kept
    from compressor.task.guard import GuardedTask

T = TypeVar("T")


@dataclass(frozen=True)
class _Training:
    """What a process needs to take part in a training."""

    options: dict[str, Any]
    state: Kept
    generator: Tensor
    quick: bool
    original: str
    """Fingerprint of the model that is the teacher."""


class Processes:
    """The processes of a `torchrun`."""

    def __init__(self, task: GuardedTask, device: torch.device) -> None:
        """`torch.distributed` is initialised."""
        self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._task, self._device = task, device
        self._training = False
        """Whether the others are at work; they cannot be dismissed then."""

    @contextmanager
    def together(self, training: Method, state: State, context: Context) -> Iterator[None]:
        """Send the model as it is, and what the training is."""
        self._training = True
        if self.rank == 0:
            _send(
                _Training(
                    training.model_dump(mode="json"),
                    StateForm(self._task, self._device).write(state),
                    context.generator.get_state(),
                    context.quick,
                    of_model(context.original),
                )
            )
        yield
        self._training = False

    def agreed(self, make: Callable[[], T]) -> T:
        """By a broadcast."""
        value: T = _send(make()) if self.rank == 0 else _received()
        return value

    def add_up(self, parameters: Sequence[nn.Parameter], loss: Tensor) -> Tensor:
        """By two reductions over all processes."""
        return shared_sums(parameters, loss, _largest, _total)

    def dismiss(self) -> None:
        """The leader needs nobody any more."""
        if self.rank == 0 and not self._training:
            _send(None)

    def assist(self, original: nn.Module) -> None:
        """Take part in each training of the leader until it is done.

        Raises:
            UsageError: The task gives this process another model than the leader.
        """
        form = StateForm(self._task, self._device)
        while (sent := _received()) is not None:
            if sent.original != of_model(original):
                raise UsageError(
                    f"the task gives process {self.rank} a model with other weights than process 0",
                    hint="`Task.model` must give the same weights each time: load them, or seed what draws them",
                )
            state = form.read(sent.state)
            generator = torch.Generator()
            generator.set_state(sent.generator)
            context = Context(
                task=self._task,
                original=original,
                device=self._device,
                generator=generator,
                progress=Silent(),
                quick=sent.quick,
                team=self,
            )
            Retrain(**sent.options).train(state, context)


def count() -> int:
    """How many processes `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


@contextmanager
def joined(task: GuardedTask, device: torch.device) -> Iterator[Helpers]:
    """The team of this process; `NO_HELPERS` without `torchrun`.

    Raises:
        UsageError: The processes do not find each other.
    """
    if count() == 1:
        yield NO_HELPERS
        return
    try:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"the processes do not find each other: {str(error).splitlines()[0]}",
            hint="start them with `torchrun --nproc-per-node N --no-python compressor run ...`",
        ) from error
    team = Processes(task, device)
    try:
        yield team
        team.dismiss()
    except CompressorError:
        team.dismiss()
        raise
    finally:
        distributed.destroy_process_group()


def own_device(device: torch.device) -> torch.device:
    """The device of this process: on a machine with several CUDA devices each process has its own."""
    if device.type != "cuda" or count() == 1:
        return device
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if place >= torch.cuda.device_count():
        raise UsageError(
            f"there are {torch.cuda.device_count()} CUDA devices, and this is process {place + 1} of this machine",
            hint="start one process a device with --nproc-per-node, or use --device cpu",
        )
    torch.cuda.set_device(place)
    return torch.device("cuda", place)


def _send(value: T) -> T:
    with _told():
        distributed.broadcast_object_list([value], src=0)
    return value


def _received() -> Any:
    box: list[Any] = [None]
    with _told():
        distributed.broadcast_object_list(box, src=0)
    return box[0]


def _largest(tensor: Tensor) -> None:
    with _told():
        distributed.all_reduce(tensor, distributed.ReduceOp.MAX)


def _total(tensor: Tensor) -> None:
    with _told():
        distributed.all_reduce(tensor)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise CompressorError(
            f"the processes lost each other: {str(error).splitlines()[0]}",
            hint="another one stopped: its message tells why; the same command goes on from the last whole epoch",
        ) from error
