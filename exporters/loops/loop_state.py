"""What is known of one loop in one run, before any of its operations is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from exporters.loops.description import At, Node
from exporters.loops.results import Results

if TYPE_CHECKING:
    from torch import Tensor

    from exporters.loops.plan import Plan
    from exporters.loops.run import Run


class LoopState:
    """One loop in one run."""

    def __init__(self, run: Run, planned: Plan) -> None:
        """Of a plan."""
        self.run, self.planned, self.body = run, planned, planned.body

    @property
    def count(self) -> Any:
        """Number of iterations."""
        return self.body.count.at(self.run.length)

    @property
    def rows_count(self) -> Any:
        """Number of rows in a sequence."""
        return self.count + 1 if self.planned.padded else self.count

    def initial(self, place: int, lag: int) -> Tensor:
        """What stands for an operation before the first iteration, as large as its results."""
        value = self.run.value(self.body.initial[place, lag])
        wanted = self.body.values[place]
        sizes = [self.run.size(pair) for pair in zip(wanted[0].shape, wanted[1].shape, strict=True)]
        value = value.to(wanted[0].dtype) if value.dtype != wanted[0].dtype else value
        source = self.body.initial[place, lag]
        shape = source.values[0].shape if isinstance(source, Node) else value.shape
        same = [str(size) for size in shape] == [str(size) for size in wanted[0].shape]
        return value if same or isinstance(source, At) else value.expand(sizes)  # type: ignore[no-any-return]

    def covers(self, source: Any, axis: int) -> bool:
        """Whether there are as many iterations as steps in a tensor."""
        if isinstance(source, At):
            values: Any = self.run.program.loops[source.loop].values[source.place]
        else:
            values = source.values
        return [value.shape[axis] for value in values] == [self.body.count.at(t) for t in self.run.program.lengths]

    def padded(self, results: Results) -> Results:
        """One more row, of zeros, if there may be no iteration."""
        if not self.planned.padded:
            return results
        sides = (1, 0) if results.backward else (0, 1)
        return Results(nn.functional.pad(results.value, (0, 0) * (results.value.dim() - 1) + sides), results.backward)
