"""Does an exported file agree with PyTorch, also at batch sizes and lengths that its export never saw?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.errors import CompressorError, TaskError
from compressor.measure.agreement import Tolerances, compare, wrong
from compressor.measure.diagnosis import RANDOM_FILE, RANDOM_MODEL
from compressor.report import Parity, ParityPoint
from compressor.task import samples

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from compressor.report import Noise
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
) -> Parity:
    """Compare both at the `points` of the task, with inputs from `task.example`, and on `real` inputs.

    Agreement at a point means: as many outputs, each of the same shape and dtype, NaN in the same places, and
    |file - torch| <= atol + rtol * |torch| everywhere else; integers and booleans must be equal. An output that is
    further off still agrees if its largest error and the root mean square of its errors are at most a small multiple
    of the model's own (`agreement.MULTIPLES`), as long as that is a small part of the largest output.

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

    Returns:
        One `ParityPoint` a point. Disagreement, and a file that fails at a point, are recorded, not raised.

    Raises:
        TaskError: PyTorch itself fails at a point inside the task's range.
    """
    seed = int(torch.randint(_SEED_LIMIT, (), generator=generator))
    pairs = [*(points(task) if at is None else at), *extra]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        inputs = [*(task.example(*pair) for pair in pairs), *(sample.inputs for sample in real)]
        pairs += [(samples.size(task, one.inputs, "batch"), samples.size(task, one.inputs, "time")) for one in real]
        noise = noise_on(inputs)
        tolerances = Tolerances(atol, rtol, noise)
        found = [
            _point(torch_forward, file_forward, call, *pair, tolerances)
            for call, pair in zip(inputs, pairs, strict=True)
        ]
    origins = [*["example"] * (len(pairs) - len(real)), *(sample.origin for sample in real)]
    placed = (point.model_copy(update={"origin": origin}) for point, origin in zip(found, origins, strict=True))
    return Parity(atol=atol, rtol=rtol, points=tuple(placed), noise=noise)


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


def _point(
    torch_forward: Callable[..., Any],
    file_forward: Callable[..., Any],
    inputs: Inputs,
    batch: int,
    length: int,
    tolerances: Tolerances,
) -> ParityPoint:
    try:
        expected = _called(torch_forward, inputs)
    except CompressorError:
        raise
    except Exception as error:
        raise TaskError(
            f"the model fails at batch {batch} and length {length}: {type(error).__name__}: {error}",
            hint="let the task's min_length, max_length and dynamic axes name only what the model takes",
        ) from error
    try:
        actual = _called(file_forward, inputs)
        point = compare(expected, actual, batch=batch, length=length, tolerances=tolerances)
        if point.within:
            return point
        for forward, first, note in ((torch_forward, expected, RANDOM_MODEL), (file_forward, actual, RANDOM_FILE)):
            again = compare(first, _called(forward, inputs), batch=batch, length=length, tolerances=tolerances)
            if not again.within:
                return wrong(batch, length, note)
    except CompressorError as error:
        return wrong(batch, length, error.message)
    return point


def _called(forward: Callable[..., Any], inputs: Inputs) -> tuple[Tensor, ...]:
    """Outputs for copies of the inputs, which a model may write into."""
    return _flat(forward(*(part.clone() for part in inputs)))


def _flat(outputs: object) -> tuple[Tensor, ...]:
    """The tensors in nested tuples and lists, in order."""
    if isinstance(outputs, Tensor):
        return (outputs.detach().cpu(),)
    if isinstance(outputs, (tuple, list)):
        return tuple(tensor for item in outputs for tensor in _flat(item))
    raise TaskError(
        f"the model returns {type(outputs).__name__}", hint="return a tensor or a tuple of tensors from forward"
    )
