"""Does an exported file agree with PyTorch, also at batch sizes and lengths that its export never saw?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.errors import CompressorError, TaskError
from compressor.measure.agreement import Tolerances, compare, wrong
from compressor.measure.diagnosis import RANDOM_FILE, RANDOM_MODEL
from compressor.report import Parity, ParityPoint
from compressor.task import samples
from compressor.task.axes import BATCH, TIME
from compressor.task.sizes import example_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compressor.report import Noise, Origin
    from compressor.task.contract import Inputs, Task
    from compressor.task.samples import Sample

_BATCHES = (1, 2, 5, 3)
"""Batch 1 twice, at both ends of the lengths; otherwise primes, since equal sizes hide swapped axes."""
_SEED_LIMIT = 2**63 - 1


def check(
    torch_forward: Callable[..., Any],
    file_forward: Callable[..., Any],
    task: Task,
    *,
    atol: float,
    rtol: float,
    generator: torch.Generator,
    at: Sequence[tuple[int, int]] | None = None,
    extra: Sequence[tuple[int, int]] = (),
    real: Sequence[Sample] = (),
    noise_on: Callable[[Sequence[Inputs]], Noise | None] = lambda inputs: None,
    between: Callable[[], object] = lambda: None,
) -> Parity:
    """Compare both at the `points` of the task, with inputs from `task.example`, and on `real` inputs.

    Agreement at a point means: as many outputs, each of the same shape and dtype, NaN in the same places, and
    |file - torch| <= atol + rtol * |torch| everywhere else; integers and booleans must be equal. An output that is
    further off still agrees if its largest error and the root mean square of its errors are at most a small multiple
    of the model's own (`Noise.multiple`), as long as that is a small part of the largest output.

    Args:
        torch_forward: the PyTorch model in evaluation mode, on CPU tensors.
        file_forward: the exported file, for instance an `OnnxFile`.
        task: gives the axes, the range of lengths and the inputs.
        atol: absolute tolerance.
        rtol: relative tolerance.
        generator: seeds the random numbers that `task.example` may draw; the global state is left as it was.
        at: (batch, length) pairs to compare at; the `points` of the task by default.
        extra: more of them.
        real: inputs from the task's data.
        noise_on: how far the model itself is off on the inputs that are compared, see `float_noise.measure`.
        between: called when PyTorch has given all outputs, before the file is called: only one of the two need be in
            memory. PyTorch is called again where they disagree.

    Returns:
        One `ParityPoint` a point. Disagreement, and a file that fails at a point, are recorded, not raised.

    Raises:
        TaskError: PyTorch itself fails at a point inside the task's range.
    """
    seed = int(torch.randint(_SEED_LIMIT, (), generator=generator))
    pairs = (*(points(task) if at is None else at), *extra)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        cases = [_made_up(task, *pair, further_sizes(task, index)) for index, pair in enumerate(pairs)]
        cases += [_given(task, sample) for sample in real]
        noise = noise_on([case.inputs for case in cases])
        tolerances = Tolerances(atol, rtol, noise)
        expected = [_expected(torch_forward, case) for case in cases]
        between()
        found = tuple(
            _point(torch_forward, file_forward, case, outputs, tolerances)
            for case, outputs in zip(cases, expected, strict=True)
        )
    return Parity(atol=atol, rtol=rtol, points=found, noise=noise)


def points(task: Task) -> tuple[tuple[int, int], ...]:
    """The (batch, length) pairs at which a file is checked; the same for the same task.

    With both axes dynamic: the shortest and the longest length at batch 1, and two lengths between them, primes
    if there are some, at batches 2 and 5; then the longest at batch 3. With one axis dynamic only that one
    varies, and with none the one shape is checked with several inputs. There are always at least four.
    """
    names = {name for axes in task.inputs.values() for name in axes.values()}
    lengths = _lengths(task.min_length, task.max_length) if "time" in names else (task.length,) * 4
    if "batch" not in names:
        return tuple((1, length) for length in lengths)
    if "time" not in names:
        return tuple((batch, task.length) for batch in _BATCHES)
    shortest, early, late, longest = lengths
    return (1, shortest), (2, early), (5, late), (1, longest), (3, longest)


def further_sizes(task: Task, index: int) -> dict[str, int]:
    """The size of each further open axis at point `index`: both ends of its range, and two sizes between.

    Several axes, and lengths, never go through their sizes in step, so that equal sizes hide no swapped axes.
    """
    sizes = {}
    for place, (name, bounds) in enumerate(task.ranges.items(), start=1):
        own = _lengths(*bounds)
        sizes[name] = own[(index + place) % len(own)]
    return sizes


def _lengths(shortest: int, longest: int) -> tuple[int, int, int, int]:
    """Both ends, and the primes (or else the numbers) nearest to one and two thirds of the way."""
    third = (longest - shortest) / 3
    inner = list(range(shortest + 1, longest)) or [shortest]
    primes = [number for number in inner if _is_prime(number)]
    choice = primes if len(primes) > 1 else inner
    early = _nearest(choice, shortest + third)
    late = _nearest([number for number in choice if number != early] or choice, shortest + 2 * third)
    return shortest, early, late, longest


def _nearest(numbers: Sequence[int], goal: float) -> int:
    return min(numbers, key=lambda number: abs(number - goal))


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, math.isqrt(number) + 1))


@dataclass(frozen=True)
class _Case:
    """Inputs at which both are compared."""

    inputs: Inputs
    batch: int
    length: int
    sizes: Mapping[str, int]
    origin: Origin = "example"

    def placed(self, point: ParityPoint) -> ParityPoint:
        """A point with what is not in it yet."""
        return point.model_copy(update={"sizes": dict(self.sizes), "origin": self.origin})

    def __str__(self) -> str:
        further = "".join(f", {name} {size}" for name, size in self.sizes.items())
        return f"batch {self.batch}, length {self.length}{further}"


def _made_up(task: Task, batch: int, length: int, sizes: Mapping[str, int]) -> _Case:
    return _Case(example_at(task, batch, length, sizes), batch, length, sizes)


def _given(task: Task, sample: Sample) -> _Case:
    batch, length, *further = (samples.size(task, sample.inputs, name) for name in (BATCH, TIME, *task.ranges))
    return _Case(sample.inputs, batch, length, dict(zip(task.ranges, further, strict=True)), sample.origin)


def _expected(torch_forward: Callable[..., Any], case: _Case) -> tuple[Tensor, ...]:
    try:
        return _called(torch_forward, case.inputs)
    except CompressorError:
        raise
    except Exception as error:
        raise TaskError(
            f"the model fails at {case}: {type(error).__name__}: {error}",
            hint="let the task's min_length, max_length and dynamic axes name only what the model takes",
        ) from error


def _point(
    torch_forward: Callable[..., Any],
    file_forward: Callable[..., Any],
    case: _Case,
    expected: tuple[Tensor, ...],
    tolerances: Tolerances,
) -> ParityPoint:
    try:
        actual = _called(file_forward, case.inputs)
        point = compare(expected, actual, batch=case.batch, length=case.length, tolerances=tolerances)
        for forward, first, note in ((torch_forward, expected, RANDOM_MODEL), (file_forward, actual, RANDOM_FILE)):
            if not point.within and not _repeats(forward, case.inputs, first, tolerances):
                point = wrong(case.batch, case.length, note)
                break
    except CompressorError as error:
        point = wrong(case.batch, case.length, error.message)
    return case.placed(point)


def _repeats(forward: Callable[..., Any], inputs: Inputs, first: tuple[Tensor, ...], tolerances: Tolerances) -> bool:
    """Whether a second call gives the same."""
    return compare(first, _called(forward, inputs), batch=0, length=0, tolerances=tolerances).within


def _called(forward: Callable[..., Any], inputs: Inputs) -> tuple[Tensor, ...]:
    """Outputs for copies of the inputs, which a model may write into."""
    return _flat(forward(*(part.clone() for part in inputs)))


def _flat(outputs: object) -> tuple[Tensor, ...]:
    """Copies of the tensors in nested tuples and lists, in order: a model may write into what it gave before."""
    if isinstance(outputs, Tensor):
        return (outputs.detach().to("cpu", copy=True),)
    if isinstance(outputs, (tuple, list)):
        return tuple(tensor for item in outputs for tensor in _flat(item))
    raise TaskError(
        f"the model returns {type(outputs).__name__}", hint="return a tensor or a tuple of tensors from forward"
    )
