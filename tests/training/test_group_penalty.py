"""Each penalty is its formula, and nothing outside the groups is touched."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compressor.training.group_penalty import GroupAxis, GroupPenalty, Groups


def network() -> dict[str, nn.Parameter]:
    """Two matrices, 5 units between them in 2 groups of rows and columns; unit 2 is in no group."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: nn.Parameter(torch.randn(*sizes, generator=generator, dtype=torch.float64))
        for name, sizes in {"first": (5, 3), "second": (2, 5), "scale": (5,)}.items()
    }


UNITS = torch.tensor([0, 1, -1, 1, 2])


def groups() -> Groups:
    return Groups(
        layers=torch.tensor([0, 0, 1]),
        going=torch.tensor([True, False, True]),
        axes=[GroupAxis("first", 0, UNITS), GroupAxis("second", 1, UNITS)],
        scales=[GroupAxis("scale", 0, UNITS)],
    )


def naive_norms(parameters: dict[str, nn.Parameter]) -> list[float]:
    norms = [0.0, 0.0, 0.0]
    for unit, group in enumerate(UNITS.tolist()):
        if group >= 0:
            rows, columns = parameters["first"].detach()[unit], parameters["second"].detach()[:, unit]
            norms[group] += float(rows.square().sum() + columns.square().sum())
    return norms


def test_squared_norms_are_the_sums_over_rows_and_columns():
    parameters = network()
    assert groups().squared_norms(parameters).tolist() == pytest.approx(naive_norms(parameters))


def naive_strengths(penalty: str, parameters: dict[str, nn.Parameter], step: int) -> list[float]:
    norms = [norm**0.5 for norm in naive_norms(parameters)]
    if penalty == "growing":
        return [0.3 * step, 0.0, 0.3 * step]
    if penalty == "lasso":
        return [0.3 / norm for norm in norms]
    low, high = sorted(norms[:2])
    return [*(0.3 * 2 ** (2.0 * (high - norm) / (high - low)) for norm in norms[:2]), 0.3]


@pytest.mark.parametrize("penalty", ["growing", "group_norm", "lasso"])
def test_weights_shrink_as_the_formula_says(penalty):
    parameters = network()
    before = {name: item.detach().clone() for name, item in parameters.items()}
    strengths = naive_strengths(penalty, parameters, step=4)
    GroupPenalty(parameters, groups(), penalty, strength=0.3, alpha=2.0).shrink_(4, 0.05)

    for unit, group in enumerate(UNITS.tolist()):
        factor = 1.0 if group < 0 else 1.0 - 0.05 * strengths[group]
        assert torch.allclose(parameters["first"][unit], before["first"][unit] * factor, rtol=1e-12)
        assert torch.allclose(parameters["second"][:, unit], before["second"][:, unit] * factor, rtol=1e-12)
    assert torch.equal(parameters["scale"], before["scale"])


def test_a_weight_step_is_one_along_the_gradient_of_the_group_norms():
    parameters = network()
    before = parameters["first"].detach().clone()
    loss = 0.3 * torch.stack([parameters["first"][0].norm() ** 2, parameters["second"][:, 0].norm() ** 2]).sum().div(2)
    loss.backward()
    gradient = parameters["first"].grad
    GroupPenalty(parameters, groups(), "growing", strength=0.3).shrink_(1, 0.05)
    assert gradient is not None
    assert torch.allclose(parameters["first"][0], before[0] - 0.05 * gradient[0], rtol=1e-12)


def test_scales_alone_shrink_by_a_constant_and_stop_at_zero():
    parameters = network()
    with torch.no_grad():
        parameters["scale"].copy_(torch.tensor([0.5, -0.5, 0.5, 0.001, 2.0]))
    before = parameters["first"].detach().clone()
    GroupPenalty(parameters, groups(), "norm_scale", strength=0.3).shrink_(1, 0.05)
    assert parameters["scale"].tolist() == pytest.approx([0.485, -0.485, 0.5, 0.0, 1.985])
    assert torch.equal(parameters["first"], before)


def test_a_strong_penalty_stops_at_zero():
    parameters = network()
    GroupPenalty(parameters, groups(), "growing", strength=0.3).shrink_(1000, 0.05)
    assert torch.equal(parameters["first"][0], torch.zeros(3, dtype=torch.float64))
