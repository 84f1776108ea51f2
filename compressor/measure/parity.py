"""Does an exported file agree with PyTorch, also at batch sizes and lengths that its export never saw?"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from compressor.errors import CompressorError, TaskError
from compressor.report import Parity, ParityPoint
from compressor.task.sizes import example_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from compressor.task.contract import Task

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
) -> Parity:
    """Compare both at the `points` of the task, with inputs from `task.example`.

    Agreement at a point means: as many outputs, each of the same shape and dtype, NaN in the same places, and
    |file - torch| <= atol + rtol * |torch| everywhere else; integers and booleans must be equal.

    Args:
        torch_forward: the PyTorch model in evaluation mode, on CPU tensors.
        file_forward: the exported file, for instance an `OnnxFile`.
        task: gives the axes, the range of lengths and the inputs.
        atol: absolute tolerance.
        rtol: relative tolerance.
        generator: seeds the random numbers that `task.example` may draw; the global state is left as it was.
        at: (batch, length) pairs to compare at; the `points` of the task by default.
        extra: more of them.

    Returns:
        One `ParityPoint` a point. Disagreement, and a file that fails at a point, are recorded, not raised.

    Raises:
        TaskError: PyTorch itself fails at a point inside the task's range.
    """
    seed = int(torch.randint(_SEED_LIMIT, (), generator=generator))
    pairs = (*(points(task) if at is None else at), *extra)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        found = tuple(
            _point(torch_forward, file_forward, task, *pair, further_sizes(task, index), atol=atol, rtol=rtol)
            for index, pair in enumerate(pairs)
        )
    return Parity(atol=atol, rtol=rtol, points=found)


def table(parity: Parity) -> str:
    """The points as plain text, for an error message."""
    further = list(parity.points[0].sizes) if parity.points else []
    rows = ["  batch  length  " + "".join(f"{name}  " for name in further) + "max abs    max rel"]
    rows += [
        f"  {point.batch:>5}  {point.length:>6}  "
        + "".join(f"{point.sizes[name]:>{len(name)}}  " for name in further)
        + f"{point.max_absolute:.2e}   {point.max_relative:.2e}"
        + ("" if point.within else f"   {point.note or 'too large'}")
        for point in parity.points
    ]
    return "\n".join(rows)


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


def _point(
    torch_forward: Callable[..., Any],
    file_forward: Callable[..., Any],
    task: Task,
    batch: int,
    length: int,
    sizes: Mapping[str, int],
    *,
    atol: float,
    rtol: float,
) -> ParityPoint:
    inputs = example_at(task, batch, length, sizes)
    try:
        expected = _flat(torch_forward(*(tensor.clone() for tensor in inputs)))
    except CompressorError:
        raise
    except Exception as error:
        raise TaskError(
            f"the model fails at batch {batch} and length {length}{_listed(sizes)}: {type(error).__name__}: {error}",
            hint="let the task's min_length, max_length and dynamic axes name only what the model takes",
        ) from error
    try:
        actual = _flat(file_forward(*inputs))
    except CompressorError as error:
        return wrong(batch, length, error.message).model_copy(update={"sizes": dict(sizes)})
    point = compare(expected, actual, batch=batch, length=length, atol=atol, rtol=rtol)
    return point.model_copy(update={"sizes": dict(sizes)})


def _listed(sizes: Mapping[str, int]) -> str:
    return "".join(f", {name} {size}" for name, size in sizes.items())


def compare(
    expected: tuple[Tensor, ...],
    actual: tuple[Tensor, ...],
    *,
    batch: int,
    length: int,
    atol: float,
    rtol: float,
    reference: str = "PyTorch",
) -> ParityPoint:
    """Outputs of the file against those that it should give, which are called `reference` in notes; see `check`."""
    note = _mismatch(expected, actual, reference)
    if note:
        return wrong(batch, length, note)
    absolute = relative = 0.0
    within = True
    for wanted, got in zip(expected, actual, strict=True):
        differs, scale = _difference(wanted, got)
        absolute = max(absolute, _largest(differs))
        relative = max(relative, _largest(torch.where(differs == 0, 0.0, differs / (scale + atol))))
        exact = not wanted.is_floating_point()
        within = within and bool((differs <= (0.0 if exact else atol + rtol * scale)).all())
    return ParityPoint(batch=batch, length=length, max_absolute=absolute, max_relative=relative, within=within)


def _flat(outputs: object) -> tuple[Tensor, ...]:
    """The tensors in nested tuples and lists, in order."""
    if isinstance(outputs, Tensor):
        return (outputs.detach().cpu(),)
    if isinstance(outputs, (tuple, list)):
        return tuple(tensor for item in outputs for tensor in _flat(item))
    raise TaskError(
        f"the model returns {type(outputs).__name__}", hint="return a tensor or a tuple of tensors from forward"
    )


def _mismatch(expected: tuple[Tensor, ...], actual: tuple[Tensor, ...], reference: str) -> str:
    """What differs before any number is compared; empty if nothing does."""
    if len(expected) != len(actual):
        return f"the file gives {len(actual)} outputs, {reference} {len(expected)}"
    for index, (wanted, got) in enumerate(zip(expected, actual, strict=True)):
        if wanted.shape != got.shape:
            return f"output {index} has shape {tuple(got.shape)}, in {reference} {tuple(wanted.shape)}"
        if wanted.dtype != got.dtype:
            return f"output {index} is {got.dtype}, in {reference} {wanted.dtype}"
        if not torch.equal(wanted.isnan(), got.isnan()):
            return f"output {index} has NaN in other places than {reference}'s"
    return ""


def _difference(wanted: Tensor, got: Tensor) -> tuple[Tensor, Tensor]:
    """|got - wanted| and |wanted| in double precision; 0 if both are NaN or the same infinity."""
    wanted, got = wanted.double(), got.double()
    same = (wanted == got) | wanted.isnan()
    scale = torch.where(wanted.isfinite(), wanted.abs(), 0.0)
    return torch.where(same, 0.0, (got - wanted).abs()), scale


def _largest(values: Tensor) -> float:
    return float(values.max()) if values.numel() else 0.0


def wrong(batch: int, length: int, note: str) -> ParityPoint:
    """A point at which no numbers can be compared, and why."""
    return ParityPoint(
        batch=batch, length=length, max_absolute=math.inf, max_relative=math.inf, within=False, note=note
    )
