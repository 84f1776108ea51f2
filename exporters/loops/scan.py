"""What of a loop has feedback, as an ONNX `Scan`.

While the rolled model is traced a placeholder stands for it, since an operator with a body cannot be emitted then. The
body is a module of its own (`step_module`), traced and translated as any other; `expand` puts both together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from exporters.loops.description import Affine, At, Node, is_constant
from exporters.loops.operations import leaves
from exporters.loops.results import Results

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from exporters.loops.description import Body, Program
    from exporters.loops.groups import Group

DOMAIN = "compressor"
PLACEHOLDER = "LoopScan"


class StepBody:
    """One iteration of what a `Scan` computes."""

    def __init__(self, model: nn.Module, program: Program, body: Body, group: Group, time: tuple[Node, int]) -> None:
        """Of a group of operations of a loop.

        Args:
            model: Has the weights.
            program: Of which the loop is a part.
            body: The loop.
            group: The operations.
            time: An input of the program, and its axis of time.
        """
        self.model, self.program, self.body, self.group, self.time = model, program, body, group, time
        self.invariants: list[Any] = []
        """Tensors that come from outside and are the same in all iterations."""
        for operation in group.places:
            for leaf in leaves(self.body.arguments[operation]):
                self._need(leaf)

    def _need(self, leaf: Any) -> None:
        if isinstance(leaf, Affine) and leaf.slope:
            leaf = self.time[0]
        if isinstance(leaf, At) or (isinstance(leaf, Node) and not is_constant(leaf)):
            if isinstance(leaf, Node) and isinstance(leaf.values[0], (int, torch.SymInt)):
                for source in leaves((leaf.args, leaf.kwargs)):
                    self._need(source)
            elif leaf not in self.invariants:
                self.invariants.append(leaf)

    def node(
        self,
        number: int,
        states: Sequence[Tensor],
        steps: Sequence[Results],
        invariants: Sequence[Tensor],
        sizes: Sequence[Sequence[Any]],
    ) -> tuple[list[Tensor], list[Results]]:
        """The last states and all results, as the placeholder gives them in the rolled model.

        Args:
            number: Of the placeholder.
            states: Before the first iteration.
            steps: What changes from iteration to iteration.
            invariants: Values of `invariants`.
            sizes: Of the results of one iteration.
        """
        backward = all(step.backward for step in steps)
        dtypes = [self.body.values[place][0].dtype for place in self.group.outputs]
        count = steps[0].value.shape[0]
        results = torch.onnx.ops.symbolic_multi_out(
            f"{DOMAIN}::{PLACEHOLDER}",
            (*states, *(step.value for step in steps), *invariants),
            {
                "number": number,
                "states": len(states),
                "backward": [int(step.backward) for step in steps],
                "results": [int(backward)] * len(dtypes) or [0],
            },
            dtypes=(*(state.dtype for state in states), *dtypes),
            shapes=(*(tuple(state.shape) for state in states), *((count, *size) for size in sizes)),
            version=1,
        )
        sequences = [Results(value, backward) for value in results[len(states) :]]
        return list(results[: len(states)]), sequences
