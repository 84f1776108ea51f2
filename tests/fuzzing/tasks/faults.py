"""What can be wrong with a task: each fault spoils a good one, and has the words that its error must have."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from tests.fuzzing.tasks.bases import LONG_NAME, Fuzzed, Net

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Fault:
    """Attributes that replace those of a good task."""

    changes: dict[str, Any]
    words: str | None
    """A regular expression that the error matches; None: the task is to be accepted."""


def _network(forward: Callable[[Net, Any, Any], Any], before: Callable[[Net], None] | None = None) -> dict[str, Any]:
    """A model whose results are passed through a function of (model, results, first input)."""

    class Changed(Net):
        def forward(self, x: Any, scale: Any = None, *, state: Any = None) -> Any:
            return forward(self, super().forward(x, scale, state=state), x)

    def model(self: Fuzzed) -> nn.Module:
        network = Changed(self.choice)
        if before is not None:
            before(network)
        return network

    return {"model": model}


def _made(change: Callable[[Net], Any]) -> dict[str, Any]:
    """A model that was treated in some way."""
    return {"model": lambda self: change(Net(self.choice))}


def _returns(name: str, value: Any) -> dict[str, Any]:
    return {name: lambda self, *arguments: value}


def _raises(name: str, error: BaseException) -> dict[str, Any]:
    def function(self: Fuzzed, *arguments: Any) -> Any:
        raise error

    return {name: function}


def _tree(function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Net, Any, Any], Any]:
    return lambda model, results, x: torch.utils._pytree.tree_map_only(torch.Tensor, function, results)


def _filled(value: float) -> Callable[[Net], Net]:
    def fill(network: Net) -> Net:
        with torch.no_grad():
            network.head.weight[0, 0] = value
        return network

    return fill


def _inference(network: Net) -> Net:
    with torch.inference_mode():
        return copy.deepcopy(network)


def _half_head(network: Net) -> Net:
    network.head = network.head.bfloat16()
    return network


def _counting(network: Net, results: Any, x: Any) -> Any:
    network.count = getattr(network, "count", 0) + 1
    return torch.utils._pytree.tree_map_only(torch.Tensor, lambda part: part + network.count, results)


def _one_length(network: Net, results: Any, x: Any) -> Any:
    length = x.shape[1 if network.first else 0]
    if length != Fuzzed.length:
        raise RuntimeError(f"expected {Fuzzed.length} positions, got {length}")
    return results


def _other_structure(network: Net, results: Any, x: Any) -> Any:
    return results if x.shape[1 if network.first else 0] == Fuzzed.length else (results, results)


def _spoilt_batch(change: Callable[[torch.Tensor], Any], before: int = 0) -> dict[str, Any]:
    """Batches whose first input is changed, after some good ones."""

    def batches(self: Fuzzed, generator: torch.Generator) -> Any:
        for _ in range(before):
            yield self.inputs_of(4, self.length, generator), torch.zeros(4, dtype=torch.int64)
        call = self.inputs_of(4, self.length, generator)
        leaves, spec = torch.utils._pytree.tree_flatten(vars(call) if hasattr(call, "kwargs") else call)
        leaves[0] = change(leaves[0])
        spoilt = torch.utils._pytree.tree_unflatten(leaves, spec)
        if hasattr(call, "kwargs"):
            spoilt = type(call)(*spoilt["args"], **spoilt["kwargs"])
        yield spoilt, torch.zeros(4, dtype=torch.int64)

    return {"batches": batches}


def _example(change: Callable[[Fuzzed, int, int], Any]) -> dict[str, Any]:
    return {"example": change}


def _evaluate(change: Callable[[Fuzzed, Any], Any]) -> dict[str, Any]:
    return {"evaluate": change}


def _loss(change: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    return {"loss": lambda self, outputs, target: change(self.logits(outputs).square().mean())}


def _unsteady(self: Fuzzed, forward: Any) -> torch.Tensor:
    type(self).choice["turn"] = turn = type(self).choice.get("turn", 0) + 1
    return self.logits(self.called(forward)).argmax(1).eq(0).float()[: 4 + turn % 2]


def _plain(changes: dict[str, Any], **choice: Any) -> dict[str, Any]:
    """Changes that need a certain good task."""
    return {**changes, "needs": {"call": "tensor", "tokens": False, **choice}}


def _large(batch: int, length: int, first: bool) -> torch.Tensor:
    return torch.randn(batch, length, 3) if first else torch.randn(length, batch, 3)


FAULTS: dict[str, Fault] = {
    # the model
    "model raises": Fault(_raises("model", ValueError("no weights")), "`model` of .* raised ValueError: no weights"),
    "model ends the program": Fault(_raises("model", SystemExit(3)), "`model` of .* raised SystemExit"),
    "model is None": Fault(_returns("model", None), "must give a torch.nn.Module, not NoneType"),
    "model is a class": Fault(_returns("model", nn.Linear), "must give a torch.nn.Module, not type"),
    "meta": Fault(_made(lambda net: net.to("meta")), "without values"),
    "lazy": Fault(_made(lambda net: nn.Sequential(net, nn.LazyLinear(3))), "without a size"),
    "inference mode": Fault(_made(_inference), "made in inference mode"),
    "compiled": Fault(_made(torch.compile), r"compiled \(torch.compile\)"),
    "wrapped": Fault(_made(nn.DataParallel), "wrapped in DataParallel"),
    "float64": Fault(_made(lambda net: net.double()), "float64|does not run on"),
    "float16": Fault(_made(lambda net: net.half()), "float16|does not run on"),
    "bfloat16 head": Fault(_made(_half_head), "bfloat16|does not run"),
    "NaN weights": Fault(_made(_filled(float("nan"))), "weights are not finite: `head.weight`"),
    "infinite weights": Fault(_made(_filled(float("inf"))), "weights are not finite: `head.weight`"),
    "noise": Fault(_network(_tree(lambda part: part + torch.randn_like(part))), "draws random numbers"),
    "dropout left on": Fault(
        _network(_tree(lambda part: nn.functional.dropout(part + 1, 0.5, True))), "draws random numbers"
    ),
    "state in a buffer": Fault(
        _network(
            lambda net, results, x: _tree(lambda part: part + net.seen.add_(1))(net, results, x),
            lambda net: net.register_buffer("seen", torch.zeros(1)),
        ),
        "keeps a state in `seen`",
    ),
    "state in an attribute": Fault(_network(_counting), "keeps a state in an attribute"),
    "NaN outputs": Fault(_network(_tree(lambda part: part / 0 * 0)), "gives NaN in"),
    "forward raises": Fault(
        _network(lambda net, results, x: x.shape[9]), r"does not run on `example\(2, 6\)`.*IndexError"
    ),
    "forward gives nothing": Fault(_network(lambda net, results, x: None), "gives no tensor"),
    "forward gives text and an object": Fault(_network(lambda net, results, x: (results, object())), "is a object"),
    "forward gives an empty tensor": Fault(_network(_tree(lambda part: part[:0])), "holds no numbers|batch"),
    "one length": Fault(_network(_one_length), r"does not run on `example\(2, 3\)`.*expected 6 positions"),
    "another structure": Fault(_network(_other_structure), "gives another structure"),
    "detached": Fault(_network(_tree(torch.Tensor.detach)), "`loss` has no gradient"),
    "frozen": Fault(_made(lambda net: net.requires_grad_(False)), "`loss` has no gradient"),
    # example
    "example raises": Fault(_raises("example", KeyError("x")), "`example` of .* raised KeyError"),
    "example is None": Fault(_returns("example", None), "gives no tensor|cannot be called"),
    "example is text": Fault(_returns("example", "abc"), "gives no tensor|does not run|cannot be called"),
    "example of NaN": Fault(
        _plain(_example(lambda self, batch, length: _large(batch, length, self.choice["batch_first"]) * float("nan"))),
        "gives NaN in `x`",
    ),
    "example of the wrong width": Fault(
        _plain(_example(lambda self, batch, length: torch.randn(batch, length, 7))), "does not run on"
    ),
    "example in float64": Fault(
        _plain(_example(lambda self, batch, length: _large(batch, length, self.choice["batch_first"]).double())),
        "does not run on",
    ),
    "example of another shape each time": Fault(
        _plain(
            _example(lambda self, batch, length: _large(batch, random.randint(2, 10**4), self.choice["batch_first"])),
            pooled=True,
            result="tensor",
            layer="linear",
        ),
        "another shape in a second call",
    ),
    "too many arguments": Fault(
        _plain(_example(lambda self, batch, length: (torch.randn(batch, length, 3),) * 5)), "cannot be called with"
    ),
    "huge example": Fault(
        _plain(_example(lambda self, batch, length: torch.empty(batch, length, 2**50))), "raised RuntimeError"
    ),
    # attributes
    "max_length of 10**12": Fault({"max_length": 10**12}, "of memory"),
    "max_length below length": Fault({"max_length": 3}, "needs 1 <= min_length <= length <= max_length"),
    "length of 0": Fault({"length": 0}, "needs 1 <= min_length"),
    "length is text": Fault({"length": "6"}, "`length` of .* must be a whole number"),
    "length is a fraction": Fault({"max_length": 12.5}, "`max_length` of .* must be a whole number"),
    "metric is no text": Fault({"metric": None}, "`metric` of .* must be text"),
    "higher_is_better is text": Fault({"higher_is_better": "yes"}, "`higher_is_better` of .* must be True or False"),
    "inputs is a list": Fault({"inputs": ["x"]}, "`inputs` of .* must map"),
    "axis is text": Fault({"inputs": {"x": {"0": "batch"}}}, "`inputs` of .* must map"),
    "word is a number": Fault({"outputs": {"y": {0: 1}}}, "`outputs` of .* must map"),
    "axes are swapped": Fault(
        _plain({"inputs": {"x": {0: "time", 1: "batch"}}}, batch_first=True), "`inputs` calls axis 0 of `x` `time`"
    ),
    "axis out of range": Fault(_plain({"inputs": {"x": {7: "batch"}}}), "names axis 7 of `x`"),
    "negative axis": Fault(_plain({"inputs": {"x": {-1: "time"}}}), "names axis -1 of `x`"),
    "axis is a truth value": Fault(_plain({"inputs": {"x": {False: "batch"}}}), "`inputs` of .* must map"),
    "axis without a name": Fault(_plain({"inputs": {"x": {0: " "}}}), "`inputs` of .* must map"),
    "axis of a name that fills clipboards": Fault(_plain({"outputs": {"y": {0: "\x1b]52;c;aGk=\x07"}}}), "must map"),
    "tensor without a name": Fault(_plain({"inputs": {"": {0: "batch"}}}), "`inputs` of .* must map"),
    "too many names": Fault({"inputs": {f"x{index}": {} for index in range(9)}}, "names 9 tensors"),
    "a name twice": Fault(
        _plain({"outputs": {"x": {}}, "inputs": {"x": {0: "batch", 1: "time"}}}, batch_first=True, result="tensor"),
        "calls an input and an output `x`",
    ),
    "names of 300 characters": Fault(
        _plain({"inputs": {LONG_NAME: {0: "batch", 1: "time"}}, "metric": LONG_NAME}, batch_first=True), None
    ),
    "unknown part of a batch": Fault({"batch_parts": ("inputs", "target")}, "`batch_parts` .*`inputs`"),
    # batches
    "batches raises": Fault(_raises("batches", OSError("disk")), "`batches` of .* raised OSError: disk"),
    "no batches": Fault(_returns("batches", []), "`batches` gives no batch"),
    "batches is None": Fault(_returns("batches", None), "`batches` of .* raised TypeError"),
    "batches of three": Fault(_returns("batches", [(1, 2, 3)]), "gives 3 elements"),
    "batches of tensors": Fault(_returns("batches", [torch.zeros(3)]), "must give pairs"),
    "batches of dictionaries": Fault(_returns("batches", [{"x": torch.zeros(3)}]), "which entry is the target"),
    "batch of another type": Fault(_spoilt_batch(lambda part: part.to(torch.int32)), "in int32, `example` in"),
    "batch of another width": Fault(
        {**_spoilt_batch(lambda part: torch.zeros(4, 6, 9)), "needs": {"tokens": False, "batch_first": True}},
        "of size 9 along axis 2",
    ),
    "batch with an axis more": Fault(_spoilt_batch(lambda part: part.unsqueeze(-1)), "axes, `example` with"),
    "empty batch": Fault(_spoilt_batch(lambda part: part[:0]), "which holds nothing"),
    "batch of NaN": Fault(
        {**_spoilt_batch(lambda part: part * float("nan")), "needs": {"tokens": False}}, "not finite"
    ),
    "batch that is too long": Fault(
        {**_spoilt_batch(lambda part: torch.cat([part] * 9, 1)), "needs": {"batch_first": True}},
        "54 positions, and `max_length` is 12",
    ),
    "later batch of NaN": Fault(
        {**_spoilt_batch(lambda part: part * float("nan"), before=2), "needs": {"tokens": False}},
        "batch 3 of `batches` gives .*not finite",
    ),
    "later batch of another type": Fault(
        _spoilt_batch(lambda part: part.to(torch.int32), before=1), "batch 2 of `batches` gives .* in int32"
    ),
    "later batch that is empty": Fault(
        _spoilt_batch(lambda part: part[:0], before=3), "batch 4 of `batches` .*which holds nothing"
    ),
    "later batch raises": Fault(
        _spoilt_batch(lambda part: part[99, 99], before=1), "`batches` of .* raised IndexError"
    ),
    # loss
    "loss raises": Fault(_raises("loss", ZeroDivisionError("n")), "`loss` of .* raised ZeroDivisionError"),
    "loss is a float": Fault(_returns("loss", 0.5), "one number as a tensor, not float"),
    "loss is a vector": Fault(_loss(lambda loss: loss.expand(3)), r"not a tensor of shape \(3,\)"),
    "loss is complex": Fault(_loss(lambda loss: torch.complex(loss, loss)), "`loss` gives complex64"),
    "loss is an integer": Fault(_loss(lambda loss: loss.long()), "`loss` gives int64"),
    "loss is NaN": Fault(_loss(lambda loss: loss * float("nan")), "`loss` gives nan"),
    "loss without gradient": Fault(_loss(lambda loss: loss.detach()), "`loss` has no gradient"),
    "loss of gradient 0": Fault(_loss(lambda loss: loss * 0 + 1), "0 in every parameter"),
    "gradient is not finite": Fault(
        _loss(lambda loss: ((loss - loss) ** 0.5) + loss), "gradient of `loss` is not finite"
    ),
    # evaluate
    "evaluate raises": Fault(_raises("evaluate", AttributeError("a")), "`evaluate` of .* raised AttributeError"),
    "evaluate never calls": Fault(_returns("evaluate", 0.5), "never calls `forward`"),
    "evaluate gives nothing": Fault(
        _evaluate(lambda self, forward: (self.called(forward), None)[1]), "is None, not a metric"
    ),
    "evaluate gives text": Fault(_evaluate(lambda self, forward: (self.called(forward), "0.5")[1]), "not a metric"),
    "evaluate gives NaN": Fault(_evaluate(lambda self, forward: (self.called(forward), float("nan"))[1]), "is nan"),
    "evaluate gives a complex": Fault(_evaluate(lambda self, forward: (self.called(forward), 1j)[1]), "not a metric"),
    "evaluate gives no samples": Fault(
        _evaluate(lambda self, forward: (self.called(forward), torch.zeros(0))[1]), "scores are empty"
    ),
    "evaluate draws other inputs": Fault(
        _evaluate(lambda self, forward: (self.called(forward, random.randint(2, 10**4)), 0.5)[1]),
        "other inputs each time",
    ),
    "evaluate draws its result": Fault(
        _evaluate(lambda self, forward: (self.called(forward), random.random())[1]), "in a second call"
    ),
    "evaluate changes its sample count": Fault(_evaluate(_unsteady), "samples, and . in a second call"),
    "evaluate calls in another way": Fault(
        _evaluate(lambda self, forward: forward(1, 2, 3)), "called in another way|cannot be called|only tensors"
    ),
    "validate raises": Fault(_raises("validate", RuntimeError("v")), "`validate` of .* raised RuntimeError"),
    "validate never calls": Fault(_returns("validate", 0.5), "`validate` never calls `forward`"),
}
