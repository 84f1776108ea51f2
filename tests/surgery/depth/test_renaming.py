"""Layers of the original are found again after their stack was changed, and are what distillation compares."""

import pytest
import torch

from compressor.errors import MethodError
from compressor.methods.base import State
from compressor.methods.retrain import Retrain
from compressor.surgery.depth.chains import Site, arrange
from compressor.surgery.depth.loops import KIND
from compressor.surgery.depth.mixing import apply_mix_record, mix_record
from compressor.surgery.depth.renaming import name_now
from compressor.training.distillation import Teacher
from tests.methods.conftest import CHANNELS, SignTask, make_context
from tests.methods.test_depth_search import Residual

SIX = Site("layers", 1, 6)
LOOPS = {"kind": "halting", "module": "layers", "groups": [[0, 1], [3, 4, 5]]}
MIX = {"kind": "layer_mix", "module": "layers", "first": 1, "count": 2}


@pytest.mark.parametrize(
    ("chain", "name", "now"),
    [
        ((0, 1, 3, 4, 5), "layers.2.linear", "layers.2.linear"),
        ((0, 1, 3, 4, 5), "layers.3", "layers.2"),  # left out: what the next one reads
        ((0, 1, 3, 4, 5), "layers.3.linear", None),
        ((0, 1, 3, 4, 5), "layers.5.linear", "layers.4.linear"),
        ((0, 1, 3, 4, 5), "layers.0", "layers.0"),
        ((0, 1, 3, 4, 5), "layers.7", "layers.6"),
        ((0, 1, 3), "layers.6", "layers.3"),  # what leaves the stack
        ((2, 3), "layers.1", None),  # what enters it
        ((0, 1, 1, 2), "layers.2", "layers.3"),
        ((0, 1), "other.2", "other.2"),
        ((0, 1), "layers.head", "layers.head"),
    ],
)
def test_names_after_a_chain(chain, name, now):
    assert name_now(name, [SIX.record(chain)]) == now


@pytest.mark.parametrize(
    ("record", "name", "now"),
    [
        (LOOPS, "layers.1", "layers.0"),
        (LOOPS, "layers.0", None),
        (LOOPS, "layers.2.linear", "layers.1.linear"),
        (LOOPS, "layers.5", "layers.2"),
        (LOOPS, "layers.6", "layers.3"),
        (LOOPS, "layers.5.linear", None),
        (MIX, "layers.0", "layers.0"),
        (MIX, "layers.1", "layers.1.layers.0"),
        (MIX, "layers.2", "layers.1"),
        (MIX, "layers.2.linear", "layers.1.layers.1.linear"),
        (MIX, "layers.3", "layers.2"),
    ],
)
def test_names_in_loops_and_behind_maps(record, name, now):
    assert name_now(name, [record]) == now


def test_every_name_is_that_of_the_same_numbers():
    """A stack with its first layer twice and one left out: outputs are compared at the places that names give."""
    torch.manual_seed(0)
    model = Residual(layers=4).eval()
    site = Site("blocks", 0, 4)
    shorter = Residual(layers=4).eval()
    shorter.load_state_dict(model.state_dict())
    arrange(shorter, site, (0, 1, 3))
    records = [site.record((0, 1, 3)), mix_record(Site("blocks", 0, 4), 3, 24, hears_all=True)]
    apply_mix_record(shorter, records[1])
    x = (torch.randn(3, 6, CHANNELS),)
    hidden = ("blocks.0", "blocks.1", "blocks.3.linear")
    moved = {name: name_now(name, records) for name in hidden}
    taught = Teacher(model, shorter, kind="mse", temperature=1.0, hidden=hidden, example=x, moved=moved)
    with taught as teacher, torch.no_grad():
        wanted = [model.enter(x[0])]
        for block in model.blocks:
            wanted.append(block(wanted[-1]))
        loss = teacher.loss(x, shorter(*x))
        last = model.blocks[3]
        mine, theirs = last.linear(last.norm(wanted[2])), last.linear(last.norm(wanted[3]))
    output = (shorter(*x) - model(*x)).square().mean()
    torch.testing.assert_close(loss, output + (mine - theirs).square().mean() / 3)  # the other two are the same


def test_retraining_compares_moved_layers_and_refuses_those_that_are_gone():
    model = Residual(layers=4).eval()
    site = Site("blocks", 0, 4)
    shorter = Residual(layers=4).eval()
    arrange(shorter, site, (0, 3))
    state = State(shorter, structure=(site.record((0, 3)),))
    context = make_context(model, SignTask())
    Retrain(distill=True, distill_hidden=("blocks.2", "blocks.3")).apply(state, context)
    with pytest.raises(MethodError, match=r"an earlier step left `blocks.2.linear` out"):
        Retrain(distill=True, distill_hidden=("blocks.2.linear",)).apply(state, context)


def follow(count, groups):
    """Place of each layer in the list after these groups became loops: a loop is where its first layer was."""
    left, now = [], {}
    for place in range(count):
        group = next((group for group in groups if place in group), None)
        if group is None or place == group[0]:
            now[place] = len(left)
            left.append(place)
        else:
            now[place] = now[group[0]]
    return now


@pytest.mark.parametrize(
    "groups", [[[1, 2]], [[1, 2], [4, 5, 6]], [[0, 1, 2], [3, 4]], [[5, 6], [0, 1]], [[2, 3, 4, 5]]]
)
def test_layers_around_several_loops_are_where_the_list_has_them(groups):
    record, now = {"kind": KIND, "module": "layers", "groups": groups}, follow(8, groups)
    for place in range(8):
        group = next((group for group in groups if place in group), None)
        whole = name_now(f"layers.{place}", [record])
        inner = name_now(f"layers.{place}.linear", [record])
        if group is None:
            assert (whole, inner) == (f"layers.{now[place]}", f"layers.{now[place]}.linear")
        else:
            assert (whole, inner) == (f"layers.{now[place]}" if place == group[-1] else None, None)
