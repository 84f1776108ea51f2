"""How a model is called: any arguments and results on the user's side, a flat tuple of tensors on the tool's side.

Everything inside the tool calls a model as `model(*tensors)` and gets a tensor or a flat tuple of tensors. A user's
`forward` takes what its author liked: keyword arguments, dictionaries, nested states, `None`, numbers; and gives named
tuples, dataclasses or the output classes of other libraries. A `Signature` is found from one call and translates in
both directions. Only tensors vary between calls; all else is part of the signature.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from compressor.errors import TaskError
from compressor.task.trees import CONSTANTS, Tree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


class Call:
    """The arguments of one call of `forward`, keyword arguments among them: `Call(x, hx=state)`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Keep the arguments as they are."""
        self.args, self.kwargs = args, kwargs


def as_call(inputs: Any) -> Call:
    """The call that a task's inputs stand for.

    A tuple or a list holds positional arguments, a dictionary keyword arguments; a tensor or anything else is the only
    argument. A named tuple, or a dictionary inside a tuple, is one argument.
    """
    if isinstance(inputs, Call):
        return inputs
    if isinstance(inputs, (tuple, list)) and not hasattr(inputs, "_fields"):
        return Call(*inputs)
    if isinstance(inputs, Mapping):
        if not all(isinstance(name, str) for name in inputs):
            raise TaskError("keyword arguments must have text as names", hint="put a dictionary argument in a tuple")
        return Call(**inputs)
    return Call(inputs)


@dataclass(frozen=True)
class Signature:
    """The structure of a model's arguments and results."""

    parameters: inspect.Signature
    """Of the user's `forward`."""
    inputs: Tree
    """Of {parameter: argument}, defaults filled in."""
    outputs: Tree | None = None
    """None until the model was called once."""

    @classmethod
    def of_call(cls, forward: Callable[..., Any], call: Call) -> Signature:
        """From the arguments alone.

        Raises:
            TaskError: `forward` does not take them, or they hold something that is no tensor and no constant.
        """
        parameters = inspect.signature(forward)
        tree, _ = Tree.of(_bind(parameters, call), "argument")
        return cls(parameters, tree)

    def with_results(self, results: Any) -> Signature:
        """The same, knowing what the model gives."""
        tree, tensors = Tree.of(results, "the model's result")
        if not tensors:
            raise TaskError("the model gives no tensor", hint="`forward` must return at least one tensor")
        return dataclasses.replace(self, outputs=tree)

    @cached_property
    def is_flat(self) -> bool:
        """True if the model already takes positional tensors and gives a tensor or a tuple of tensors."""
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        plain = [name for name, parameter in self.parameters.parameters.items() if parameter.kind in kinds]
        given = list(self.inputs.names)
        first = plain[: len(given)] == given
        rest = all(constant is Tensor or constant is None for constant in self.inputs.constants)
        return first and rest and self._unused_are_defaults(given) and self._gives_flat_results()

    def _unused_are_defaults(self, given: Sequence[str]) -> bool:
        values = dict(
            zip(self.parameters.parameters, self.inputs.build([torch.empty(0)] * len(given)).values(), strict=True)
        )
        return all(
            name in given or _is_empty(parameter, values[name]) or values[name] is parameter.default
            for name, parameter in self.parameters.parameters.items()
        )

    def _gives_flat_results(self) -> bool:
        if self.outputs is None:
            return False
        sample = self.outputs.build([torch.empty(0)] * len(self.outputs.names))
        return isinstance(sample, Tensor) or (
            type(sample) is tuple and all(isinstance(part, Tensor) for part in sample)
        )

    @property
    def input_names(self) -> tuple[str, ...]:
        """A name for each tensor that goes in, from its place among the arguments."""
        return self.inputs.names

    @property
    def output_names(self) -> tuple[str, ...]:
        """A name for each tensor that comes out: `output`, `output.0`, or the names of fields and keys."""
        assert self.outputs is not None
        return tuple(
            "output" if not name else f"output.{name}" if name.partition(".")[0].isdigit() else name
            for name in self.outputs.names
        )

    def flatten(self, call: Call) -> tuple[Tensor, ...]:
        """The tensors of a call.

        Raises:
            TaskError: The call is not like the one from which the signature was found.
        """
        tree, tensors = Tree.of(_bind(self.parameters, call), "argument")
        if tree.spec != self.inputs.spec or tree.constants != self.inputs.constants:
            raise TaskError(
                f"the model is called in another way than with `example`: {tree.difference(self.inputs)}",
                hint="only the values and sizes of tensors may differ between calls; let `example` give every argument",
            )
        return tensors

    def call(self, tensors: Iterable[Tensor]) -> Call:
        """The call that hands these tensors over."""
        args, kwargs = [], {}
        arguments = self.inputs.build(tensors)
        more = any(
            parameter.kind is inspect.Parameter.VAR_POSITIONAL and len(arguments[name]) > 0
            for name, parameter in self.parameters.parameters.items()
        )
        by_name = False  # an argument that is left at its default makes all later ones keywords
        for name, parameter in self.parameters.parameters.items():
            value = arguments[name]
            if _is_left(parameter, value) and not more:
                by_name = True  # not handed over: decorators of `forward` may tell that from the default itself
                continue
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                args.extend(value)
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                kwargs.update(value)
            elif parameter.kind is inspect.Parameter.KEYWORD_ONLY or by_name:
                kwargs[name] = value
            else:
                args.append(value)
        return Call(*args, **kwargs)

    def results(self, flat: Tensor | Sequence[Tensor]) -> Any:
        """What the user's `forward` would give, from the flat results."""
        assert self.outputs is not None
        tensors = (flat,) if isinstance(flat, Tensor) else tuple(flat)
        return self.outputs.build(tensors)

    def flat_results(self, results: Any) -> Tensor | tuple[Tensor, ...]:
        """The tensors of a result: one by itself, several as a tuple."""
        leaves = [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, Tensor)]
        return leaves[0] if len(leaves) == 1 else tuple(leaves)


def flatten_calls(model: nn.Module, signature: Signature) -> nn.Module:
    """Let `model` be called with flat tensors, in place; a model that is flat already stays as it is.

    Only this instance's `forward` changes: its class, submodules and parameter names stay, and a deep copy has a flat
    `forward` of its own.
    """
    if not signature.is_flat:
        # A bound method and nothing else: torch.export reads its code object, and a deep copy binds it to the copy.
        model.forward = MethodType(_flat_forward(signature), model)
    return model


def with_own_forward(model: nn.Module) -> nn.Module:
    """Undo `flatten_calls`, in place: the model is called as its author wrote it.

    Hooks that the tool set before the call, for flat tensors, are translated.
    """
    forward = model.__dict__.pop("forward", None)
    signature = getattr(forward, "signature", None)
    if signature is None:
        if forward is not None:
            model.forward = forward
        return model
    hooks = list(model._forward_pre_hooks.values())
    model._forward_pre_hooks.clear()
    for hook in hooks:
        model.register_forward_pre_hook(_structured_hook(signature, hook), with_kwargs=True)
    return model


def _structured_hook(signature: Signature, hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook of flat tensors as one of the user's own arguments."""

    def before(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        call = signature.call(hook(module, signature.flatten(Call(*args, **kwargs))))
        return call.args, call.kwargs

    return before


def structured(signature: Signature, forward: Callable[..., Any]) -> Callable[..., Any]:
    """A function of flat tensors that is called as the user's own `forward`."""

    def call(*args: Any, **kwargs: Any) -> Any:
        return signature.results(forward(*signature.flatten(Call(*args, **kwargs))))

    return call


def _flat_forward(signature: Signature) -> Callable[..., Tensor | tuple[Tensor, ...]]:
    def forward(self: nn.Module, *tensors: Tensor) -> Tensor | tuple[Tensor, ...]:
        call = signature.call(tensors)
        return signature.flat_results(type(self).forward(self, *call.args, **call.kwargs))

    forward.signature = signature  # type: ignore[attr-defined]
    names = ["self", *(re.sub(r"\W", "_", name) for name in signature.input_names)]
    if len(set(names)) == len(names) and all(name.isidentifier() for name in names):
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_ONLY) for name in names]
        forward.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return forward


def _bind(parameters: inspect.Signature, call: Call) -> dict[str, Any]:
    try:
        bound = parameters.bind(*call.args, **call.kwargs)
    except TypeError as error:
        raise TaskError(
            f"`forward{parameters}` cannot be called with these arguments: {error}",
            hint="`example` gives positional arguments as a tuple, keyword arguments as a dictionary, both as "
            "`compressor.Call(x, mask=m)`; `evaluate` calls `forward` as the model is called: `forward(x, mask=m)`",
        ) from error
    bound.apply_defaults()
    return dict(bound.arguments)


def _is_left(parameter: inspect.Parameter, value: Any) -> bool:
    """Whether an argument may be left out, since it is the default."""
    named = parameter.kind in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    default = parameter.default
    return named and (value is default or (type(value) is type(default) in CONSTANTS and value == default))


def _is_empty(parameter: inspect.Parameter, value: Any) -> bool:
    return parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD) and not value
