"""Makes `LowRankRecurrent` come out as operators that run faster than a dense node.

- A low-rank input matrix is applied to all steps at once: its first factor as one product in front of the layer, and
  its second one as the input matrix of a native node, which then has r inputs.
- A native `RNN`, `GRU` or `LSTM` node wants a dense recurrent matrix. So if that is two factors the layer becomes a
  `Scan`: the products with the inputs are taken for all steps in front of it, and its body holds what depends on the
  state, two small products and the gates. A graph of one step, called with the states of the one before, has no loop:
  there it is plain operators.

An LSTM with `proj_size`, for which ONNX has no node, is such a layer too: its output is h = P (o * tanh(c)), and what
meets the state is one dense matrix.

A layer emits a placeholder of the domain `PLACEHOLDER_DOMAIN` while it is traced, since an operator with a body cannot
be emitted then; `factored_scan.expand` replaces it by the `Scan`.

`Scan` is part of ONNX since opset 8 and runs in ONNX Runtime and OpenVINO; try it in any other runtime.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from compressor.gates import CellGates
    from compressor.nn.recurrent.cells import RecurrentLayer
    from compressor.nn.recurrent.factored import LowRankRecurrent
    from compressor.nn.recurrent.factored_part import LowRankPart

PLACEHOLDER_DOMAIN = "compressor"
PLACEHOLDER = "LowRankScan"


def keeps_products_apart(gates: CellGates) -> bool:
    """Whether the last gate's product with the state is scaled before it is added, as in a GRU."""
    return gates.gates[-1].state_scaled


def body_order(gates: CellGates) -> list[int]:
    """The places of the gates in the order of the body: all Sigmoid gates first, so that one operator computes them."""
    return sorted(range(gates.count), key=lambda place: gates.gates[place].activation != "Sigmoid")


def prepare_part(module: LowRankRecurrent, name: str, part: LowRankPart) -> None:
    """Give a module buffers with the factors of one layer and direction as the Scan wants them; changes `module`.

    With G gates, H units, I inputs of the layer's last input product and rank r: `X_name` (I, G * H) and `XB_name`
    (G * H,) for the products with the inputs, `D_name` (H, r) and `U_name` (r, G * H) for those with the state. Of a
    GRU `U_name` is for the gates alone, and `UN_name` (r, H) and `N_name` (H,) are matrix and bias of the new state,
    which the reset gate scales.
    """
    import torch

    from compressor.nn.factored_linear import LowRankLinear

    assert isinstance(part.hidden, LowRankLinear)
    gates = module.cell.gates
    last = part.input.up if isinstance(part.input, LowRankLinear) else part.input
    rows = last.out_features
    bias = torch.zeros(rows) if last.bias is None else last.bias.detach()
    hidden_bias = torch.zeros(rows) if part.hidden.bias is None else part.hidden.bias.detach()
    if keeps_products_apart(gates):
        sizes = [rows - rows // gates.count, rows // gates.count]
        merged, new = hidden_bias.split(sizes)
        bias = bias + torch.cat([merged, torch.zeros_like(new)])
        module.register_buffer(f"N_{name}", new.clone())
        up, new_up = part.hidden.up.weight.detach().split(sizes)
        module.register_buffer(f"U_{name}", up.T.contiguous())
        module.register_buffer(f"UN_{name}", new_up.T.contiguous())
    else:
        bias = bias + hidden_bias
        module.register_buffer(f"U_{name}", _blocks(part.hidden.up.weight.detach(), gates).T.contiguous())
    module.register_buffer(f"X_{name}", _blocks(last.weight.detach(), gates).T.contiguous())
    module.register_buffer(f"XB_{name}", _blocks(bias, gates))
    module.register_buffer(f"D_{name}", part.hidden.down.weight.detach().T.contiguous())


def prepare_projected(module: RecurrentLayer) -> None:
    """Give an LSTM with `proj_size` P such buffers; changes `module`.

    With H units and I inputs, per layer and direction: `X_name` (I, 4 * H) and `XB_name` (4 * H,) for the products with
    the inputs, `U_name` (P, 4 * H) for those with the state, and `Q_name` (H, P), the projection.
    """
    import torch

    from compressor.nn.recurrent.layers import part_suffix, parts

    for part in parts(module):
        gates, name = part.cell.gates, part_suffix(part.layer, part.direction)
        weights = {key: weight.detach() for key, weight in part.weights(module).items()}
        biases = [weights[key] for key in ("bias_ih", "bias_hh") if key in weights]
        bias = sum(biases, torch.zeros(len(weights["weight_ih"])))
        module.register_buffer(f"X_{name}", _blocks(weights["weight_ih"], gates).T.contiguous())
        module.register_buffer(f"XB_{name}", _blocks(bias, gates))
        module.register_buffer(f"U_{name}", _blocks(weights["weight_hh"], gates).T.contiguous())
        module.register_buffer(f"Q_{name}", weights["weight_hr"].T.contiguous())


def _blocks(weight: Tensor, gates: CellGates) -> Tensor:
    """`weight` (G * H, ...) with its gates in the order of the body."""
    import torch

    blocks = weight.chunk(gates.count)
    return torch.cat([blocks[place] for place in body_order(gates)])


def scan(
    module: LowRankRecurrent | RecurrentLayer,
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
        x: The inputs, behind the first factor if the input matrix has two.
        valid: (T, B, 1), False past the end of a sequence; None if there are no such steps.
        states: h, and c (B, H); h (B, P) of an LSTM with `proj_size` P, and so y.
        backward: Run from the last step to the first.
    """
    import torch

    from compressor.nn.recurrent.layers import cell_of

    gates = cell_of(module).gates
    apart = keeps_products_apart(gates)
    kinds = ("U", "Q") if module.proj_size else ("D", "U", "UN", "N") if apart else ("D", "U")
    weights = [getattr(module, f"{kind}_{name}") for kind in kinds]
    products = x @ getattr(module, f"X_{name}") + getattr(module, f"XB_{name}")  # (T, B, G * H)
    merged = (gates.count - 1) * module.hidden_size
    sequences = list(products.tensor_split((merged,), -1)) if apart else [products]
    if valid is not None:
        sequences.append(valid)
    shape = (x.shape[0], x.shape[1], states[0].shape[-1])
    last = [tuple(state.shape) for state in states]
    *ends, y = torch.onnx.ops.symbolic_multi_out(
        f"{PLACEHOLDER_DOMAIN}::{PLACEHOLDER}",
        (*states, *sequences, *weights),
        {
            "mode": gates.mode,
            "projected": int(bool(module.proj_size)),
            "masked": int(valid is not None),
            "backward": int(backward),
        },
        dtypes=(x.dtype,) * (1 + len(states)),
        shapes=(*last, shape),
        version=1,
    )
    if valid is not None:
        y = torch.where(valid, y, torch.zeros((), dtype=y.dtype))
    return (y, *ends)
