"""`depth_search` with `pooling`: a linear map of the last or of all layers' outputs stands behind a shortened stack."""

from __future__ import annotations

import copy

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor import checkpoint
from compressor.errors import CheckpointError, MethodError
from compressor.formats import EXPORTERS, Job
from compressor.methods.base import State
from compressor.methods.depth_search import DepthSearch
from compressor.methods.retrain import Retrain
from compressor.nn.layer_mix import LayerMix
from compressor.surgery.depth.chains import Site
from compressor.surgery.depth.mixing import apply_mix_record, fit, mix_record
from compressor.surgery.rebuild import rebuild
from compressor.testing import RandomTask, check_file, normal
from exporters.onnx import Options, export
from tests.methods.conftest import CHANNELS, SignTask, make_context, same, weights
from tests.methods.test_depth_search import Residual, Sequential
from tests.methods.test_tie_layers import SEQUENCES, WIDTH, Bert, Encoding, Stacked

MODELS = {"residual": Residual, "sequential": Sequential, "encoder": Encoding, "bert": Bert}
STACKS = {
    "residual": ("blocks", 0),
    "sequential": ("body", 1),
    "encoder": ("encoder.layers", 0),
    "bert": ("bert.encoder.layer", 0),
}


def _model(kind):
    torch.manual_seed(0)
    return MODELS[kind]().eval()


def _inputs(batch=16, seed=0):
    return torch.randn(batch, 6, CHANNELS, generator=torch.Generator().manual_seed(seed))


def _apply(model, **options):
    return DepthSearch(**{"layers": 2, "pooling": "multilayer", "trials": 6} | options).apply(
        State(model), make_context(model, SignTask())
    )


@pytest.mark.parametrize("hears_all", [False, True])
@pytest.mark.parametrize("kind", MODELS)
def test_a_map_starts_as_the_last_layer(kind, hears_all):
    model = _model(kind)
    mixed = copy.deepcopy(model)
    name, first = STACKS[kind]
    mix = apply_mix_record(mixed, mix_record(Site(name, first, 4), 4, WIDTH, hears_all=hears_all))
    assert isinstance(mix, LayerMix)
    assert len(mix.layers) == 4
    assert mix.mix.in_features == (5 * WIDTH if hears_all else WIDTH)
    torch.testing.assert_close(mixed(_inputs()), model(_inputs()))


@pytest.mark.parametrize("hears_all", [False, True])
def test_the_map_does_the_work_of_linear_layers(hears_all):
    """The layers that are left out are linear, so a map can give what they gave."""
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Linear(4, 4) for _ in range(4)]).eval()
    holder = nn.ModuleDict({"body": model})
    holder.forward = model.forward
    shorter = copy.deepcopy(holder)
    shorter.forward = shorter["body"].forward
    del shorter["body"][3], shorter["body"][2]
    mix = apply_mix_record(shorter, mix_record(Site("body", 0, 2), 2, 4, hears_all=hears_all))
    batches = [(torch.randn(50, 4, generator=torch.Generator().manual_seed(seed)),) for seed in range(4)]
    fit(mix, shorter, holder, Site("body", 0, 4), batches)
    [inputs] = batches[0]
    torch.testing.assert_close(shorter["body"](inputs), model(inputs), atol=2e-3, rtol=1e-2)


@pytest.mark.parametrize("kind", MODELS)
def test_outputs_are_nearer_with_it_than_without(kind):
    result = _apply(_model(kind), pooling_batches=6)
    with_it = result.facts["error of the outputs with `pooling: multilayer`"]
    assert with_it < 0.9 * result.facts["error of the outputs"]
    assert result.changes[0].note.endswith("of the layers 0 to 3, and a map of all of them")


@pytest.mark.parametrize("kind", ["encoder", "bert"])
def test_files_and_checkpoints_hold_it(kind, tmp_path):
    model = _model(kind)
    state = _apply(model).state
    trained = Retrain(epochs=1, distill=True).apply(state, make_context(model, SignTask())).state
    mix = next(module for module in trained.model.modules() if isinstance(module, LayerMix))
    before = next(module for module in state.model.modules() if isinstance(module, LayerMix))
    assert not mix.mix.weight.equal(before.mix.weight)
    task = SignTask()
    task.model = MODELS[kind]
    checkpoint.save(tmp_path, trained.model, trained.structure)
    loaded = checkpoint.load(tmp_path, task)
    assert same(weights(loaded), weights(trained.model))
    random = RandomTask(SEQUENCES, {"y": {0: "batch"}}, normal(CHANNELS), max_length=9)
    export(Job(trained.model, random, tmp_path / "model.onnx", Options(), seed=0))
    check_file(tmp_path / "model.onnx", trained.model, random)


def test_c_has_it_too(tmp_path):
    model = _apply(_model("residual")).state.model
    options = EXPORTERS["c"].options.model_validate({"form": "sequence", "length": 5})
    task = RandomTask(SEQUENCES, {"y": {0: "batch"}}, normal(CHANNELS), max_length=9)
    artifact = EXPORTERS["c"].export(Job(model, task, tmp_path / options.file_name(), options))
    assert artifact.parity.passed
    assert {point.length for point in artifact.parity.points} == {5}
    assert artifact.parity.largest_error < 1e-5


@pytest.mark.parametrize("way", ["outer residual", "norms"])
def test_what_stands_between_layers_is_found_out(way):
    model = Residual(way=way).eval()
    with pytest.raises(MethodError, match=r"give other outputs|no stack") as caught:
        _apply(model)
    assert "leave `pooling` out" in caught.value.hint or way == "norms"


def test_recurrent_modules_are_refused_with_the_reason():
    with pytest.raises(MethodError, match="what leaves its layers inside cannot be read"):
        DepthSearch(layers=2, pooling="multilayer").check_task(Stacked(), SignTask())


def test_the_number_of_batches_needs_the_pooling():
    with pytest.raises(ValidationError, match="`pooling_batches` has no effect without `pooling: linear`"):
        DepthSearch(layers=2, pooling_batches=5)


@pytest.mark.parametrize(
    "change", [{"module": "nothing"}, {"first": 3}, {"count": 0}, {"width": "24"}, {"hears_all": 1}]
)
def test_a_record_that_does_not_fit_is_refused(change):
    structure = _apply(_model("encoder")).state.structure
    with pytest.raises(CheckpointError):
        rebuild(Encoding(), [structure[0], structure[1] | change])


def test_a_record_of_layers_without_weights_is_refused():
    model = nn.ModuleDict({"body": nn.Sequential(nn.ReLU(), nn.Tanh())})
    with pytest.raises(CheckpointError, match="mixes layers of `body` that this model does not have"):
        rebuild(model, [mix_record(Site("body", 0, 2), 2, 4, hears_all=False)])
