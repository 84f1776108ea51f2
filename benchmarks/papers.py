"""Small experiments for claims of papers that have no step of their own in a recipe; docs/concepts/papers.md.

    python benchmarks/papers.py --quick     # a minute of one core
    python benchmarks/papers.py             # longer fits, more seeds

`equilibrium propagation`: its gradient beside backpropagation through the relaxation, as beta goes to 0 (float64).
`hypernetwork`: a chunked one that generates the weights of the Reber sample's LSTM, beside SVD of as many numbers.
`gradient noise`: a deep network from a poor and from a usual start, with and without it.
`parameters`: of an Aaren, beside those of multi-head attention of the same width.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from compressor.nn.attention.aaren import AarenAttention
from compressor.training.noise import add_noise_, noise_std

WEIGHTS = Path(__file__).parents[1] / "samples" / "reber" / "lstm.safetensors"
BETAS = (1.0, 0.1, 0.01, 0.001)
CHUNK = 200
PARTS = (0.5, 0.25, 0.125)
"""Of the numbers of the weights."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer steps of the hypernetwork's fit")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| beta | cosine with backpropagation | relative difference | two-sided |\n|---|---|---|---|")
    for beta, cosine, one, two in equilibrium_propagation():
        print(f"| {beta:g} | {cosine:.6f} | {one:.1e} | {two:.1e} |", flush=True)
    print("\n| part of the numbers | chunked hypernetwork | SVD |\n|---|---|---|")
    for part, generated, low_rank in hypernetwork(steps=100 if options.quick else 1000):
        print(f"| {part:g} | {generated:.3f} | {low_rank:.3f} |", flush=True)
    print("\n| start | without noise | eta 0.01 | eta 0.1 |\n|---|---|---|---|")
    for start, *means in gradient_noise(seeds=2 if options.quick else 5):
        print(f"| {start} | {' | '.join(means)} |", flush=True)
    print("\n| width, heads | multi-head attention | Aaren |\n|---|---|---|")
    for width, heads in ((64, 4), (128, 8), (256, 8)):
        print(f"| {width}, {heads} | {count(nn.MultiheadAttention(width, heads)):,} | {count(aaren(width, heads)):,} |")


def equilibrium_propagation() -> list[tuple[float, float, float, float]]:
    """Rows of beta, cosine, and relative differences with one nudge and with two of opposite signs (arXiv 1602.05179).

    Energy E = |u|^2 / 2 - tanh(u) W tanh(u) / 2 - tanh(u) (V x + b) with a symmetric W, cost C = |u_out - y|^2 / 2. The
    state relaxes to a minimum of E + beta C; the estimate is (dE/dw nudged - dE/dw free) / beta.
    """
    torch.manual_seed(0)
    units, outputs, inputs = 12, 3, 5
    raw = 0.25 * torch.randn(units, units, dtype=torch.float64)
    parameters = [(raw + raw.T) / 2, torch.randn(units, inputs, dtype=torch.float64), torch.randn(units).double()]
    x, y = torch.randn(inputs).double(), torch.randn(outputs).double()

    def energy(u: Tensor, w: list[Tensor]) -> Tensor:
        rho = torch.tanh(u)
        return u.square().sum() / 2 - rho @ w[0] @ rho / 2 - rho @ (w[1] @ x + w[2])

    def cost(u: Tensor) -> Tensor:
        return (u[:outputs] - y).square().sum() / 2

    def relaxed(beta: float, w: list[Tensor], steps: int, *, differentiable: bool) -> Tensor:
        u = torch.zeros(units, dtype=torch.float64, requires_grad=True)
        for _ in range(steps):
            [slope] = torch.autograd.grad(energy(u, w) + beta * cost(u), u, create_graph=differentiable)
            u = u - 0.3 * slope if differentiable else (u - 0.3 * slope).detach().requires_grad_()
        return u

    def slopes(beta: float) -> Tensor:
        w = [part.clone().requires_grad_() for part in parameters]
        state = relaxed(beta, w, 500, differentiable=False).detach()
        return torch.cat([part.flatten() for part in torch.autograd.grad(energy(state, w), w)])

    w = [part.clone().requires_grad_() for part in parameters]
    exact = torch.autograd.grad(cost(relaxed(0.0, w, 300, differentiable=True)), w)
    exact_flat = torch.cat([part.flatten() for part in exact])
    rows = []
    free = slopes(0.0)
    for beta in BETAS:
        nudged = slopes(beta)
        one, two = (nudged - free) / beta, (nudged - slopes(-beta)) / (2 * beta)
        cosine = float(nn.functional.cosine_similarity(one, exact_flat, 0))
        differences = [float((each - exact_flat).norm() / exact_flat.norm()) for each in (one, two)]
        rows.append((beta, cosine, *differences))
    return rows


def gradient_noise(seeds: int) -> list[tuple[str, ...]]:
    """Rows of the start and, for each noise, mean and range of the accuracy of 10 ReLU layers (arXiv 1511.06807).

    The paper's section 4.1 in small (it has 20 layers): 50 units each, here on ten overlapping classes of points in 20
    dimensions, SGD, variance eta / (1 + t)^0.55 from step t on. Poor: weights of deviation 0.1, as in the paper; usual:
    those of PyTorch's `kaiming_normal_`.
    """
    rows = []
    for start in ("poor", "usual"):
        cells = []
        for eta in (0.0, 0.01, 0.1):
            found = [_deep_accuracy(start, eta, seed) for seed in range(seeds)]
            cells.append(f"{sum(found) / seeds:.1%} ({min(found):.1%} to {max(found):.1%})")
        rows.append((start, *cells))
    return rows


def _deep_accuracy(start: str, eta: float, seed: int) -> float:
    """On points that were not trained on, after 300 steps."""
    data, random = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    centres = torch.randn(10, 20, generator=data)
    classes = torch.randint(10, (3000,), generator=data)
    points = centres[classes] + torch.randn(3000, 20, generator=data)
    layers = [nn.Linear(20 if place == 0 else 50, 50) for place in range(10)]
    net = nn.Sequential(*(part for layer in layers for part in (layer, nn.ReLU())), nn.Linear(50, 10))
    for layer in (part for part in net if isinstance(part, nn.Linear)):
        deviation = 0.1 if start == "poor" else math.sqrt(2 / layer.in_features)
        nn.init.normal_(layer.weight, std=deviation, generator=random)
        nn.init.zeros_(layer.bias)
    parameters = list(net.parameters())
    for step in range(300):
        chosen = torch.randint(2000, (64,), generator=random)
        loss = nn.functional.cross_entropy(net(points[chosen]), classes[chosen])
        gradients = list(torch.autograd.grad(loss, parameters))
        norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        gradients = [gradient * min(1.0, 10.0 / norm) for gradient in gradients]
        if eta:
            add_noise_(gradients, noise_std(step, eta, 0.55), random)
        with torch.no_grad():
            torch._foreach_add_(parameters, gradients, alpha=-0.05)
    with torch.no_grad():
        return float((net(points[2000:]).argmax(1) == classes[2000:]).float().mean())


def hypernetwork(steps: int) -> list[tuple[float, float, float]]:
    """Rows of the part of the numbers, and the relative errors |W - W'| / |W| of a hypernetwork and of SVD.

    Chunks of 200 numbers are generated one after another by one LSTM cell from an embedding each, so that later ones
    depend on earlier ones (arXiv 2209.07712), and a linear readout.
    """
    state = load_file(WEIGHTS)
    matrices = [value for name, value in state.items() if "recurrent.weight" in name]
    flat = torch.cat([value.flatten() for value in matrices])
    return [(part, _generated(flat, part, steps), _low_rank(matrices, part)) for part in PARTS]


def _generated(flat: Tensor, part: float, steps: int) -> float:
    torch.manual_seed(0)
    chunks = flat.view(-1, CHUNK)
    embedding = 4
    budget = int(part * len(flat))
    hidden = max(h for h in range(1, 400) if _numbers(h, embedding, len(chunks)) <= budget)
    keys = nn.Parameter(0.1 * torch.randn(len(chunks), embedding))
    cell, readout = nn.LSTM(embedding, hidden), nn.Linear(hidden, CHUNK)
    optimizer = torch.optim.Adam([keys, *cell.parameters(), *readout.parameters()], 1e-2)
    best = math.inf
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 1e-2 * (1 + math.cos(math.pi * step / steps)) / 2
        error = (readout(cell(keys.unsqueeze(1))[0].squeeze(1)) - chunks).square().sum()
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        best = min(best, float(error.detach()))
    return math.sqrt(best) / float(flat.norm())


def _numbers(hidden: int, embedding: int, chunks: int) -> int:
    return chunks * embedding + 4 * hidden * (hidden + embedding + 2) + CHUNK * (hidden + 1)


def _low_rank(matrices: list[Tensor], part: float) -> float:
    """Every matrix by its own SVD, to the same part of its numbers."""
    lost = 0.0
    for matrix in matrices:
        rank = int(part * matrix.numel() / sum(matrix.shape))
        lost += float(torch.linalg.svdvals(matrix)[rank:].square().sum())
    return math.sqrt(lost / sum(float(matrix.square().sum()) for matrix in matrices))


def aaren(width: int, heads: int) -> nn.Module:
    """Attention with one learned query instead of a projection of queries."""
    per_head = width // heads
    return AarenAttention(
        heads,
        query_width=width,
        input_width=width,
        head_width=per_head,
        value_head_width=per_head,
        output_width=width,
    )


def count(module: nn.Module) -> int:
    """Parameters."""
    return sum(parameter.numel() for parameter in module.parameters())


if __name__ == "__main__":
    main()
