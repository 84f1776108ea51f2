"""Makes `LowRankRecurrent` come out as operators that run faster than the dense node that it stands for.

- A low-rank input matrix is applied to all steps at once: its first factor as one product in front of the layer, and
  its second one as the input matrix of a native node, which then has r inputs.
- A native `RNN`, `GRU` or `LSTM` node wants a dense recurrent matrix. So where that is two factors the layer becomes a
  `Scan`: the products with the inputs are taken for all steps in front of it, and its body holds what depends on the
  state, two small products and the gates. A graph of one step, called with the states of the one before, has no loop:
  there it is plain operators.

An LSTM with `proj_size`, for which ONNX has no node, is such a layer too: its output is h = P (o * tanh(c)), and what
meets the state is one dense matrix.

A layer emits a placeholder of the domain `PLACEHOLDER_DOMAIN` while it is traced, since an operator with a body cannot
be emitted then; `expand` puts the `Scan` in its place.

`Scan` is part of ONNX since opset 8 and runs in ONNX Runtime and OpenVINO; try it in any other runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx_ir
    from torch import Tensor, nn

    from compressor.nn.recurrent.factored import LowRankPart, LowRankRecurrent

PLACEHOLDER_DOMAIN = "compressor"
_PLACEHOLDER = "LowRankScan"
_PROJECTED = "LSTM_PROJECTED"
_LSTM_BLOCKS = (0, 1, 3, 2)
"""PyTorch's i, f, g, o in the order i, f, o, g: one Sigmoid for the first three blocks."""


def prepare_part(module: LowRankRecurrent, name: str, part: LowRankPart, mode: str) -> None:
    """Give a module buffers with the factors of one layer and direction as the Scan wants them; changes `module`.

    With G gates, H units, I inputs of the layer's last input product and rank r: `X_name` (I, G * H) and `XB_name`
    (G * H,) for the products with the inputs, `D_name` (H, r) and `U_name` (r, G * H) for those with the state. Of a
    GRU `U_name` is for the gates alone, and `UN_name` (r, H) and `N_name` (H,) are matrix and bias of the new state,
    which the reset gate scales.
    """
    import torch

    from compressor.nn.factored_linear import LowRankLinear

    assert isinstance(part.hidden, LowRankLinear)
    last = part.input.up if isinstance(part.input, LowRankLinear) else part.input
    rows = last.out_features
    bias = torch.zeros(rows) if last.bias is None else last.bias.detach()
    hidden_bias = torch.zeros(rows) if part.hidden.bias is None else part.hidden.bias.detach()
    if mode == "GRU":
        size = rows // 3
        gates, new = hidden_bias[: 2 * size], hidden_bias[2 * size :]
        bias = bias + torch.cat([gates, torch.zeros_like(new)])
        module.register_buffer(f"N_{name}", new.clone())
        up, new_up = part.hidden.up.weight.detach().split([2 * size, size])
        module.register_buffer(f"U_{name}", up.T.contiguous())
        module.register_buffer(f"UN_{name}", new_up.T.contiguous())
    else:
        bias = bias + hidden_bias
        module.register_buffer(f"U_{name}", _blocks(part.hidden.up.weight.detach(), mode).T.contiguous())
    module.register_buffer(f"X_{name}", _blocks(last.weight.detach(), mode).T.contiguous())
    module.register_buffer(f"XB_{name}", _blocks(bias, mode))
    module.register_buffer(f"D_{name}", part.hidden.down.weight.detach().T.contiguous())


def prepare_projected(module: nn.LSTM) -> None:
    """Give an LSTM with `proj_size` P such buffers; changes `module`.

    With H units and I inputs, per layer and direction: `X_name` (I, 4 * H) and `XB_name` (4 * H,) for the products with
    the inputs, `U_name` (P, 4 * H) for those with the state, and `Q_name` (H, P), the projection.
    """
    import torch

    from compressor.nn.recurrent.gates import layer_names

    for names in layer_names(module):
        name = f"l{names.layer}" + ("_reverse" if names.direction else "")
        own, back, out = (
            getattr(module, str(kind)).detach() for kind in (names.weight_ih, names.weight_hh, names.weight_hr)
        )
        given = [getattr(module, bias).detach() for bias in (names.bias_ih, names.bias_hh) if bias is not None]
        bias = sum(given, torch.zeros(len(own)))
        module.register_buffer(f"X_{name}", _blocks(own, "LSTM").T.contiguous())
        module.register_buffer(f"XB_{name}", _blocks(bias, "LSTM"))
        module.register_buffer(f"U_{name}", _blocks(back, "LSTM").T.contiguous())
        module.register_buffer(f"Q_{name}", out.T.contiguous())


def _blocks(weight: Tensor, mode: str) -> Tensor:
    """`weight` (G * H, ...) with its gates in the order of the body."""
    import torch

    if mode != "LSTM":
        return weight
    parts = weight.chunk(4)
    return torch.cat([parts[block] for block in _LSTM_BLOCKS])


def scan(
    module: LowRankRecurrent | nn.LSTM,
    name: str,
    x: Tensor,
    valid: Tensor | None,
    states: Sequence[Tensor],
    *,
    backward: bool,
) -> tuple[Tensor, ...]:
    """One layer in one direction on x (T, B, I): y (T, B, H) and the last h, and c (B, H).

    Args:
        module: Holds the buffers.
        name: What their names end in.
        x: The inputs, behind the first factor where the input matrix has two.
        valid: (T, B, 1), False past the end of a sequence; None where there are no such steps.
        states: h, and c (B, H); h (B, P) of an LSTM with `proj_size` P, and so y.
        backward: Run from the last step to the first.
    """
    import torch

    mode = _PROJECTED if module.proj_size else module.mode
    kinds = {"GRU": ("D", "U", "UN", "N"), _PROJECTED: ("U", "Q")}.get(mode, ("D", "U"))
    weights = [getattr(module, f"{kind}_{name}") for kind in kinds]
    products = x @ getattr(module, f"X_{name}") + getattr(module, f"XB_{name}")  # (T, B, G * H)
    sequences = list(products.tensor_split((2 * module.hidden_size,), -1)) if module.mode == "GRU" else [products]
    if valid is not None:
        sequences.append(valid)
    shape = (x.shape[0], x.shape[1], states[0].shape[-1])
    last = [tuple(state.shape) for state in states]
    found = torch.onnx.ops.symbolic_multi_out(
        f"{PLACEHOLDER_DOMAIN}::{_PLACEHOLDER}",
        (*states, *sequences, *weights),
        {"mode": mode, "states": len(states), "masked": int(valid is not None), "backward": int(backward)},
        dtypes=(x.dtype,) * (1 + len(states)),
        shapes=(*last, shape),
        version=1,
    )
    y = found[-1]
    if valid is not None:
        y = torch.where(valid, y, torch.zeros((), dtype=y.dtype))
    return (y, *found[:-1])


def one_step(mode: str, part: LowRankPart, x: Tensor, states: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The same on one step x (1, B, I), for a graph that is called step by step: plain operators, no loop."""
    from compressor.nn.recurrent.factored import naive_step

    last = naive_step(mode, part, x.squeeze(0), list(states))
    return (last[0].unsqueeze(0), *last)


def expand(model: onnx_ir.Model) -> None:
    """Put a `Scan` in the place of every placeholder, in place."""
    for index, node in enumerate(list(model.graph)):
        if node.domain == PLACEHOLDER_DOMAIN and node.op_type == _PLACEHOLDER:
            _expand(model.graph, node, f"scan_{index}")
    model.opset_imports.pop(PLACEHOLDER_DOMAIN, None)


def _expand(graph: onnx_ir.Graph, node: onnx_ir.Node, prefix: str) -> None:
    import onnx_ir as ir

    attributes = node.attributes
    mode, count = attributes["mode"].as_string(), attributes["states"].as_int()
    masked, backward = attributes["masked"].as_int(), attributes["backward"].as_int()
    sequences = {"GRU": 2}.get(mode, 1) + masked
    inputs = list(node.inputs)
    outer, weights = inputs[: count + sequences], inputs[count + sequences :]
    body = _Body(prefix)
    states = [body.input(f"state_{i}", value) for i, value in enumerate(outer[:count])]
    steps = [body.input(f"step_{i}", value) for i, value in enumerate(outer[count:])]
    new = _STEPS[mode](body, states, steps[: sequences - masked], weights)
    if masked:
        new = [body("Where", [steps[-1], after, before]) for after, before in zip(new, states, strict=True)]
    new = [body("Identity", [value]) if value in states else value for value in new]
    y = body("Identity", [new[0]])
    made = ir.Node(
        "",
        "Scan",
        outer,
        [
            ir.AttrGraph("body", ir.Graph(body.inputs, [*new, y], nodes=body.nodes, name=prefix)),
            ir.AttrInt64("num_scan_inputs", sequences),
            ir.AttrInt64s("scan_input_directions", [backward] * sequences),
            ir.AttrInt64s("scan_output_directions", [backward]),
        ],
        num_outputs=count + 1,
        name=prefix,
    )
    for old, value in zip(node.outputs, made.outputs, strict=True):
        value.shape, value.type, value.name = old.shape, old.type, old.name
    for value, like in zip([*new, y], [*node.outputs[:-1], node.outputs[0]], strict=True):
        value.shape, value.type = like.shape, like.type
    graph.insert_before(node, made)
    ir.convenience.replace_all_uses_with(node.outputs, made.outputs, replace_graph_outputs=True)
    graph.remove(node, safe=True)


class _Body:
    """Collects the nodes of a body; every value has a name that no other one in the file has."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.inputs: list[onnx_ir.Value] = []
        self.nodes: list[onnx_ir.Node] = []

    def input(self, name: str, outer: onnx_ir.Value | None) -> onnx_ir.Value:
        """A state or a step, of the type of the value outside; without a shape, which follows from there."""
        import onnx_ir as ir

        assert outer is not None
        value = ir.Value(name=f"{self.prefix}_{name}", type=outer.type)
        self.inputs.append(value)
        return value

    def __call__(self, operator: str, inputs: Sequence[Any], outputs: int = 1, **attributes: Any) -> Any:
        """Add a node; gives its output, or its outputs."""
        import onnx_ir as ir

        node = ir.node(operator, inputs, attributes, num_outputs=outputs)
        for index, value in enumerate(node.outputs):
            value.name = f"{self.prefix}_{len(self.nodes)}_{index}"
        self.nodes.append(node)
        return node.outputs[0] if outputs == 1 else list(node.outputs)


def _lstm(body: _Body, states: list[Any], steps: list[Any], weights: list[Any]) -> list[Any]:
    """i, f, o = sigmoid, g = tanh of U (D h) + x;  c' = f * c + i * g;  h' = o * tanh(c')."""
    (h, c), (x,), (down, up) = states, steps, weights
    return _lstm_cell(body, body("Gemm", [body("MatMul", [h, down]), up, x]), c, up.shape[1] // 4)


def _projected(body: _Body, states: list[Any], steps: list[Any], weights: list[Any]) -> list[Any]:
    """The same with U h + x, and h' = P (o * tanh(c'))."""
    (h, c), (x,), (up, out) = states, steps, weights
    high, cell = _lstm_cell(body, body("Gemm", [h, up, x]), c, up.shape[1] // 4)
    return [body("MatMul", [high, out]), cell]


def _lstm_cell(body: _Body, total: Any, c: Any, size: int) -> list[Any]:
    """The new h and c from the sums (B, 4 * H), gates in the order i, f, o, g."""
    smooth, new = body("Split", [total, _sizes(body, [3 * size, size])], 2, axis=-1)
    enter, forget, out = body("Split", [body("Sigmoid", [smooth]), _sizes(body, [size] * 3)], 3, axis=-1)
    cell = body("Add", [body("Mul", [forget, c]), body("Mul", [enter, body("Tanh", [new])])])
    return [body("Mul", [out, body("Tanh", [cell])]), cell]


def _gru(body: _Body, states: list[Any], steps: list[Any], weights: list[Any]) -> list[Any]:
    """r, z = sigmoid(U_rz (D h) + x_rz);  n = tanh(x_n + r * (U_n (D h) + b_n));  h' = n + z * (h - n)."""
    (h,), (x_gates, x_new), (down, up_gates, up_new, bias) = states, steps, weights
    size = up_new.shape[1]
    low = body("MatMul", [h, down])
    gates = body("Sigmoid", [body("Gemm", [low, up_gates, x_gates])])
    reset, keep = body("Split", [gates, _sizes(body, [size] * 2)], 2, axis=-1)
    new = body("Tanh", [body("Add", [x_new, body("Mul", [reset, body("Gemm", [low, up_new, bias])])])])
    return [body("Add", [new, body("Mul", [keep, body("Sub", [h, new])])])]


def _rnn(activation: str) -> Any:
    def step(body: _Body, states: list[Any], steps: list[Any], weights: list[Any]) -> list[Any]:
        """H' = tanh or relu of U (D h) + x."""
        (h,), (x,), (down, up) = states, steps, weights
        return [body(activation, [body("Gemm", [body("MatMul", [h, down]), up, x])])]

    return step


def _sizes(body: _Body, sizes: list[int]) -> Any:
    import numpy as np
    import onnx_ir as ir

    return body("Constant", [], value=ir.tensor(np.array(sizes, dtype=np.int64)))


_STEPS = {"LSTM": _lstm, _PROJECTED: _projected, "GRU": _gru, "RNN_TANH": _rnn("Tanh"), "RNN_RELU": _rnn("Relu")}
