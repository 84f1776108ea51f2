"""States of zeros shrink with what they meet, along each axis, and lists of states with what is read of them."""

import pytest
import torch

from compressor.errors import SurgeryError
from compressor.surgery.trace.constants import Constants
from compressor.surgery.trace.tracer import trace
from compressor.surgery.units.choice import Amount
from compressor.surgery.units.removal import prune
from tests.surgery.strangers import FastWeights, Listed

EXAMPLES = [(torch.randn(2, 3, 5).double(),), (torch.randn(3, 7, 5).double(),)]


class InPlace(FastWeights):
    """Writes into its state."""

    def step(self, state, decay, key, value):
        return state.mul_(decay[..., None]).add_(key[..., None] * value[:, None])


class Started(FastWeights):
    """Its state starts at numbers of its own for every place."""

    def start(self, keys, values):
        return torch.arange(keys.size(-1) * values.size(-1)).to(keys).view(1, keys.size(-1), -1)


class AddsOne(FastWeights):
    """Places that no key reaches hold something."""

    def step(self, state, decay, key, value):
        return super().step(state, decay, key, value) + 1


@pytest.mark.parametrize("kind", [FastWeights, InPlace])
def test_a_state_of_two_axes_shrinks_along_one(kind):
    done = prune(kind().double().eval(), {}, EXAMPLES, names=["query", "key"], amount=Amount(ratio=0.5))
    assert done.model.key.out_features == done.model.query.out_features == 5
    assert done.model.value.out_features == 7


def test_a_state_with_numbers_of_its_own_stays():
    with pytest.raises(SurgeryError, match="fixed size"):
        prune(Started().double().eval(), {}, EXAMPLES, names=["key"], amount=Amount(ratio=0.5))


def test_what_is_not_0_without_a_key_is_no_sum_over_fewer():
    seen = trace(AddsOne().double().eval(), EXAMPLES[0])
    keys = seen.atoms.roots(seen.atoms.axes["key.weight", 0])
    reasons = seen.atoms.reasons()
    assert all("sums it and others" in reasons[key] for key in keys.tolist())


def test_a_list_that_starts_with_zeros_is_summed_with_weights():
    done = prune(Listed().double().eval(), {}, EXAMPLES, names=["cell"], amount=Amount(ratio=0.5))
    assert done.model.cell.hidden_size == 6


def test_axes_hold_one_number_as_long_as_nothing_else_is_written():
    constants = Constants()
    zeros = torch.zeros(2, 3, 5)
    constants.note([zeros], whole=True)
    assert zeros in constants
    assert constants.along(zeros) == {0, 1, 2}
    decay = torch.randn(2, 1, 1)
    product = decay * zeros
    even = constants.even_axes([decay, zeros], product)
    assert even == {1, 2}
    constants.note([product], whole=False, even=even)
    assert constants.along(product.transpose(0, 2)) == {0, 1}
    assert constants.even_axes([product, torch.randn(2, 3, 1)], torch.empty(2, 3, 5)) == {2}
    assert constants.along(product[0]) == {0, 1}
    constants.note([product], whole=False)
    assert constants.along(product) == set()
