"""A recurrent stack of another structure instead of a native one: the same outputs in shape, but no states."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NoReturn, Self, Unpack

from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compressor.errors import MethodError
from compressor.nn.record import LayerRecord, RecordedLayer, Size, allocate
from compressor.nn.recurrent.graph import GraphRecurrent
from compressor.nn.recurrent.uneven import UnevenRecurrent

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from compressor.nn.factory import FactoryOptions

_STACKS: dict[str, type[GraphRecurrent | UnevenRecurrent]] = {
    "graph_recurrent": GraphRecurrent,
    "uneven_recurrent": UnevenRecurrent,
}
"""The word after `stack` in a record -> the class."""


class NoStates:
    """Given instead of the last states of a recurrent layer; using it raises a `MethodError`.

    A stack of another structure has other states than the one in whose place it is, so there is nothing to give. A
    model that ignores the states does not notice.
    """

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):  # asked for by copying, pickling and printing
            raise AttributeError(name)
        raise self._refused(f"their `{name}`")

    def __getitem__(self, index: Any) -> NoReturn:
        raise self._refused(f"part {index}")

    def __iter__(self) -> NoReturn:
        raise self._refused("their parts one by one")

    def __len__(self) -> NoReturn:
        raise self._refused("their number")

    def __bool__(self) -> NoReturn:
        raise self._refused("their truth")

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> NoReturn:
        """Refuse to be an argument of a function of PyTorch."""
        raise cls._refused(f"them in `{getattr(function, '__name__', function)}`")

    @staticmethod
    def _refused(what: str) -> MethodError:
        return MethodError(
            f"the model reads the last states (`h_n`, `c_n`) of the layer, {what}, and a stack of another structure "
            "has none to give",
            hint="read the outputs instead, such as `output[:, -1]` for `h_n[-1]`, or choose a layer whose states are "
            "not used",
        )


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: NoStates, *_: object) -> NoReturn:
        raise self._refused(f"them in `{name}`")

    return refuse


_ARITHMETIC: Final = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
for _name in (
    *_ARITHMETIC,
    *(f"r{name}" for name in _ARITHMETIC),
    "neg",
    "pos",
    "abs",
    "invert",
    "lt",
    "le",
    "gt",
    "ge",
):
    setattr(NoStates, f"__{_name}__", _refusing(_name))


class RecurrentStackRecord(LayerRecord):
    """What a `RecurrentStack` is built from."""

    stack: Literal["graph_recurrent", "uneven_recurrent"]
    record: dict[str, Any]
    """Of the stack."""
    output_size: Size


class RecurrentStack(RecordedLayer):
    """A stack and a linear readout of its outputs to the size that consumers expect; none if the sizes are equal.

    It is called as the one-way layer of PyTorch's that it replaces, with a batch of sequences and no
    initial state. The second result is `NoStates`. Weights are called `stack.layers.0...`, `readout.weight`.
    """

    record_type: ClassVar[type[LayerRecord]] = RecurrentStackRecord
    bidirectional = False
    """It runs forward in time only."""

    def __init__(
        self,
        stack: GraphRecurrent | UnevenRecurrent,
        output_size: int,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        """Add the readout, with PyTorch's initial weights.

        Args:
            stack: What computes.
            output_size: Features of the output.
            **factory: See `FactoryOptions`.
        """
        super().__init__()
        width = _width(stack)
        self.stack = stack
        self.readout = None if width == output_size else nn.Linear(width, output_size, **factory)
        self.hidden_size = output_size

    @classmethod
    def _built(cls, fields: RecurrentStackRecord, device: torch.device | str | None, dtype: torch.dtype | None) -> Self:
        stack = _STACKS[fields.stack].from_record(fields.record, device=device, dtype=dtype)
        module = cls(stack, fields.output_size, device="meta", dtype=dtype)
        if module.readout is not None:
            allocate(module.readout, device)
        return module

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a stack of this structure."""
        word = next(word for word, kind in _STACKS.items() if type(self.stack) is kind)
        return {"stack": word, "record": self.stack.record(), "output_size": self.hidden_size}

    @property
    def input_size(self) -> int:
        """Number of input features."""
        return self.stack.input_size

    @property
    def num_layers(self) -> int:
        """Number of layers of the stack."""
        return self.stack.num_layers

    @property
    def batch_first(self) -> bool:
        """Batches are (B, T, F) instead of (T, B, F)."""
        return self.stack.batch_first

    def flatten_parameters(self) -> None:
        """Lay the weights out as cuDNN wants them."""
        self.stack.flatten_parameters()

    def forward(self, input: Any, hx: Any = None) -> tuple[Tensor, NoStates]:  # noqa: A002 the layer's name for it in PyTorch
        """Run over a batch of sequences.

        Args:
            input: (T, B, F), or (B, T, F) with `batch_first`.
            hx: None.

        Returns:
            The outputs, (T, B, output_size) or (B, T, output_size), and no states.

        Raises:
            MethodError: The input is packed or no batch, or an initial state is given.
        """
        if hx is not None:
            raise MethodError(
                "the model gives the layer an initial state, and a stack of another structure has other states",
                hint="call the layer without one, which starts from zeros, or choose another layer",
            )
        if isinstance(input, PackedSequence) or input.dim() != 3:
            form = "a packed sequence" if isinstance(input, PackedSequence) else f"a tensor of {input.dim()} axes"
            raise MethodError(
                f"the model gives the layer {form}, and a stack of another structure takes batches with 3 axes",
                hint="pad the sequences and give a single one a batch axis, or choose another layer",
            )
        output = self.stack(input)[0]  # (B, T, width)
        return output if self.readout is None else self.readout(output), NoStates()


def _width(stack: GraphRecurrent | UnevenRecurrent) -> int:
    """Number of output features of a stack."""
    return stack.hidden_size if isinstance(stack, GraphRecurrent) else sum(stack.hidden_sizes[-1])
