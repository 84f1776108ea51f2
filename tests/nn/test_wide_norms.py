"""Wide normalisations give at the kept features what PyTorch's give on the input filled up with zeros."""

import json

import pytest
import torch
from torch import nn

from compressor.errors import CheckpointError, SurgeryError
from compressor.nn.group_norm import WideGroupNorm
from compressor.nn.rms_norm import WideRMSNorm
from compressor.nn.wide_norms import has_wide_form, widened
from tests.tolerances import SAME_FLOAT64


def ready(norm):
    torch.manual_seed(0)
    for parameter in norm.double().parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return norm


def cut(norm, kept):
    """The wide form at the kept features."""
    wide = widened(norm)
    for name, parameter in list(wide.named_parameters()):
        setattr(wide, name, nn.Parameter(parameter.detach()[kept]))
    wide.resize(len(kept))
    return wide


GROUPS = {
    "three groups": (nn.GroupNorm(3, 12, eps=1e-3), [0, 2, 4, 6, 8, 10]),
    "one group": (nn.GroupNorm(1, 7), [1, 2, 5]),
    "a group per channel": (nn.GroupNorm(7, 7), [1, 2, 5]),
    "not affine": (nn.GroupNorm(2, 10, affine=False), [0, 4, 5, 9]),
    "instances": (nn.InstanceNorm1d(7), [3, 6]),
}


@pytest.mark.parametrize("case", GROUPS)
@pytest.mark.parametrize("shape", [(11,), (3, 5)])
def test_channels_and_gradients_of_groups(case, shape):
    norm, kept = GROUPS[case]
    if isinstance(norm, nn.InstanceNorm1d) and len(shape) > 1:
        norm = nn.InstanceNorm2d(7)
    features = norm.num_features if isinstance(norm, nn.InstanceNorm1d | nn.InstanceNorm2d) else norm.num_channels
    norm = ready(norm)
    narrow = cut(norm, kept)
    x = (3 + torch.randn(2, len(kept), *shape, dtype=torch.float64)).requires_grad_()
    filled = x.new_zeros(2, features, *shape).index_copy(1, torch.tensor(kept), x)
    found, expected = narrow(x), norm(filled)[:, kept]
    torch.testing.assert_close(found, expected, **SAME_FLOAT64)
    direction = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad(y, [x], direction, retain_graph=True)[0] for y in (found, expected))
    torch.testing.assert_close(ours, theirs, **SAME_FLOAT64)


@pytest.mark.parametrize("options", [{}, {"eps": 1e-3}, {"elementwise_affine": False}], ids=str)
def test_features_and_gradients_of_the_root_mean_square(options):
    norm, kept = ready(nn.RMSNorm(13, **options)), [0, 2, 3, 7, 12]
    x = torch.randn(2, 7, 5, dtype=torch.float64, requires_grad=True)
    filled = x.new_zeros(2, 7, 13).index_copy(2, torch.tensor(kept), x)
    found, expected = cut(norm, kept)(x), norm(filled)[..., kept]
    torch.testing.assert_close(found, expected, **SAME_FLOAT64)
    direction = torch.randn_like(found)
    ours, theirs = (torch.autograd.grad(y, [x], direction, retain_graph=True)[0] for y in (found, expected))
    torch.testing.assert_close(ours, theirs, **SAME_FLOAT64)


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 10), nn.RMSNorm(7, eps=1e-3), nn.InstanceNorm1d(5)], ids=str)
def test_a_record_builds_the_layer_again(norm):
    wide = widened(norm)
    again = type(wide).from_record(json.loads(json.dumps(wide.record())))
    again.load_state_dict(wide.state_dict())
    shape = (2, 7, 7) if isinstance(norm, nn.RMSNorm) else (2, wide.features, 7)
    x = torch.randn(shape)
    assert torch.equal(again(x), wide(x))
    torch.testing.assert_close(wide(x), norm(x))


def test_an_instance_norm_with_weights_or_running_statistics_can_be_cut_as_it_is():
    assert has_wide_form(nn.InstanceNorm2d(3))
    assert not has_wide_form(nn.InstanceNorm2d(3, affine=True))
    assert not has_wide_form(nn.InstanceNorm1d(3, track_running_stats=True))
    assert not has_wide_form(nn.BatchNorm1d(3))


def test_what_does_not_fit_is_refused():
    with pytest.raises(SurgeryError, match=r"an RMSNorm over several axes \(3, 5\)"):
        widened(nn.RMSNorm((3, 5)))
    with pytest.raises(ValueError, match="the input has 4 channels, the normalisation 6"):
        WideGroupNorm(6, 3, 4)(torch.zeros(2, 4, 5))
    with pytest.raises(ValueError, match="the input has 4 features, the normalisation 6"):
        WideRMSNorm(6, 7)(torch.zeros(2, 4))
    with pytest.raises(CheckpointError, match="7 channels are not 2 equal groups of at most 4"):
        WideGroupNorm.from_record({"features": 7, "groups": 2, "width": 4, "eps": 1e-5, "affine": True})


@pytest.mark.parametrize(
    ("layer", "change", "message"),
    [
        (WideRMSNorm(5, 7), {"features": 8}, "8 features cannot be left of 7"),
        (WideRMSNorm(5, 7), {"eps": -1.0}, "eps has to lie in 0..1"),
        (WideRMSNorm(5, 7), {"eps": float("nan")}, "eps has to lie in 0..1"),
        (WideGroupNorm(6, 3, 4), {"eps": float("inf")}, "eps has to lie in 0..1"),
        (WideGroupNorm(6, 3, 4), {"groups": 0}, "`groups`: Input should be greater than 0"),
    ],
)
def test_a_record_that_is_not_valid_is_refused(layer, change, message):
    with pytest.raises(CheckpointError) as caught:
        type(layer).from_record(layer.record() | change)
    assert message in str(caught.value)
