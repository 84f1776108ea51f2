"""`tie_layers` with `exit: latent_diff`: a group is one layer in a loop, in PyTorch and as an ONNX `Loop`."""

from __future__ import annotations

import onnx
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from compressor import checkpoint
from compressor.errors import CheckpointError, ExportError, MethodError
from compressor.formats import EXPORTERS, Job
from compressor.methods.base import State
from compressor.methods.depth_search import DepthSearch
from compressor.methods.magnitude import Magnitude
from compressor.methods.order import refuse_order
from compressor.methods.retrain import Retrain
from compressor.methods.tie_layers import TieLayers
from compressor.nn.halting import HaltingLayer, forget_steps, halting_layers, step_facts
from compressor.surgery.rebuild import rebuild
from compressor.testing import RandomTask, check_file, normal
from exporters import source
from exporters.onnx import Options, export
from exporters.stepping.find import find_plan
from tests.methods.conftest import CHANNELS, CLASSES, SignTask, make_context, same, weights
from tests.methods.test_depth_search import Residual
from tests.methods.test_tie_layers import SEQUENCES, WIDTH, Bert, Encoding, Stacked

LOOP = {"exit": "latent_diff", "share": "all"}


class TimeFirst(Encoding):
    """(T, B, E) inside, with a mask of padding as a further argument of each layer."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 40, 0.0)
        self.encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.2)

    def forward(self, x):
        hidden = x.abs().sum(-1) < 1.0
        return self.head(self.encoder(self.enter(x).transpose(0, 1), src_key_padding_mask=hidden)[-1])


MODELS = {"residual": Residual, "encoder": Encoding, "bert": Bert, "time first": TimeFirst}
STACKS = {"residual": "blocks", "encoder": "encoder.layers", "bert": "bert.encoder.layer"}


def _state(kind):
    torch.manual_seed(0)
    return State((MODELS[kind] if isinstance(kind, str) else kind)().eval())


def _apply(state, **options):
    return TieLayers(**LOOP | options).apply(state, make_context(state.model, SignTask()))


def _inputs(batch=16):
    return torch.randn(batch, 6, CHANNELS, generator=torch.Generator().manual_seed(0))


def _task():
    return RandomTask(SEQUENCES, {"y": {0: "batch"}}, normal(CHANNELS), max_length=9)


@pytest.mark.parametrize("kind", MODELS)
def test_a_loop_that_never_ends_early_is_the_tied_model(kind):
    state = _state(kind)
    looped = _apply(state, groups=2, threshold=1e-9).state.model
    tied = TieLayers(share="all", groups=2).apply(state, make_context(state.model, SignTask())).state.model
    torch.testing.assert_close(looped(_inputs()), tied(_inputs()))
    assert [module.steps for module in halting_layers(looped).values()] == [2, 2]
    assert all(set(module.taken) == {2} for module in halting_layers(looped).values())


@pytest.mark.parametrize(("threshold", "steps"), [(1e-9, {4}), (0.4, {2, 3}), (1.0, {1, 2})])
@pytest.mark.parametrize("kind", ["encoder", "time first"])
def test_the_file_ends_its_loop_as_pytorch_does(kind, threshold, steps, tmp_path):
    model = _apply(_state(kind), threshold=threshold).state.model
    path = tmp_path / "model.onnx"
    artifact = export(Job(model, _task(), path, Options(), seed=0))
    assert artifact.parity.passed
    assert {point.length for point in artifact.parity.points} >= {1, 9}
    assert artifact.operators["Loop"] == 1
    check_file(path, model, _task())
    forget_steps(model)
    model(_inputs())
    [module] = halting_layers(model).values()
    assert set(module.taken) & steps
    assert max(module.taken) <= max(steps)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["residual", "bert"])
def test_other_stacks_become_loops_too(kind, tmp_path):
    model = _apply(_state(kind), groups=2, threshold=0.5).state.model
    artifact = export(Job(model, _task(), tmp_path / "model.onnx", Options(), seed=0))
    assert artifact.operators["Loop"] == 2
    check_file(tmp_path / "model.onnx", model, _task())


def test_the_body_holds_the_work_and_the_weights_are_stored_once(tmp_path):
    state = _state("encoder")
    sizes = []
    for number, model in enumerate([state.model, _apply(state).state.model]):
        path = tmp_path / f"{number}.onnx"
        export(Job(model, _task(), path, Options(), seed=0))
        sizes.append(path.stat().st_size)
    removed = 3 * 4 * sum(parameter.numel() for parameter in state.model.encoder.layers[0].parameters())
    assert sizes[0] - sizes[1] > 0.95 * removed
    graph = onnx.load(tmp_path / "1.onnx").graph
    [loop] = [node for node in graph.node if node.op_type == "Loop"]
    inside = [node.op_type for node in loop.attribute[0].g.node]
    assert inside.count("Softmax") == 1
    assert not any(node.op_type == "Softmax" for node in graph.node)
    assert not loop.attribute[0].g.initializer


def test_more_or_fewer_steps_than_layers(tmp_path):
    model = _apply(_state("residual"), max_steps=7, threshold=1e-9).state.model
    model(_inputs())
    assert set(halting_layers(model)["blocks.0"].taken) == {7}
    assert step_facts(model)["largest number of steps of `blocks.0` (at most 7)"] == 7.0


def test_training_makes_all_steps_and_the_checkpoint_has_the_loop(tmp_path):
    state = _state("encoder")
    looped = _apply(state, groups=2, threshold=0.2).state
    trained = Retrain(epochs=1, distill=True).apply(looped, make_context(state.model, SignTask())).state
    checkpoint.save(tmp_path, trained.model, trained.structure)
    task = SignTask()
    task.model = Encoding
    loaded = checkpoint.load(tmp_path, task)
    assert same(weights(loaded), weights(trained.model))
    assert loaded.eval()(_inputs()).equal(trained.model(_inputs()))
    assert isinstance(loaded.encoder.layers[1], HaltingLayer)


def test_masks_go_into_the_loop():
    state = _state("encoder")
    context = make_context(state.model, SignTask())
    pruned = Magnitude(prune="weights", sparsity=0.5, targets=("encoder.layers.*",)).apply(state, context).state
    looped = _apply(pruned).state
    mask = looped.masks["encoder.layers.0.layer.linear1.weight"]
    assert not looped.model.encoder.layers[0].layer.linear1.weight[~mask].any()
    assert not any(name.startswith("encoder.layers.1") for name in looped.masks)


def test_eight_bits_reach_the_body_of_the_loop(tmp_path):
    model = _apply(_state("encoder"), threshold=0.4).state.model
    sizes = {}
    for precision in ("float32", "int8"):
        path = tmp_path / f"{precision}.onnx"
        export(Job(model, _task(), path, Options(precision=precision), seed=0))
        sizes[precision] = path.stat().st_size
    assert sizes["int8"] < 0.75 * sizes["float32"]


def _step_file(model, folder):
    return find_plan(model, _task())


def _converted(form):
    kinds, _ = EXPORTERS[form].load()
    return lambda model, folder: source.onnx_file(Job(model, _task(), folder / "model", kinds(format=form)), folder)


@pytest.mark.parametrize("write", [_step_file, _converted("c"), _converted("mnn"), _converted("ncnn")])
def test_other_files_refuse_the_loop_with_the_reason(write, tmp_path):
    model = _apply(_state("encoder")).state.model
    with pytest.raises(ExportError, match=r"ends its loop as soon as a step changes less than 0\.03") as caught:
        write(model, tmp_path)
    assert "leave `exit` out of `tie_layers`" in caught.value.hint


def test_programs_of_other_runtimes_refuse_it_too():
    from exporters.programs.trace import Format, trace

    model = _apply(_state("encoder")).state.model
    kinds, _ = EXPORTERS["litert"].load()
    with pytest.raises(ExportError, match="and LiteRT is not given loops"):
        trace(model, _task(), kinds(format="litert"), Format("litert", "LiteRT", open_length=False))


class Normed(nn.Module):
    """Layers with something of each place in or between them."""

    def __init__(self, inside):
        super().__init__()
        self.enter, self.head = nn.Linear(CHANNELS, WIDTH), nn.Linear(WIDTH, CLASSES)
        kind = (lambda: nn.Sequential(nn.Linear(WIDTH, WIDTH), Shift())) if inside else lambda: nn.Linear(WIDTH, WIDTH)
        self.layers = nn.ModuleList(kind() for _ in range(3))
        self.inside = inside

    def forward(self, x):
        x = self.enter(x)
        for number, layer in enumerate(self.layers):
            x = layer(x) if self.inside else layer(x) * (1 + number)
        return self.head(x[:, -1])


class Shift(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.randn(()))

    def forward(self, x):
        return x + self.shift


@pytest.mark.parametrize(
    "kind",
    [lambda: Residual(way="outer residual"), lambda: Residual(way="norms"), lambda: Normed(inside=True),
     lambda: Normed(inside=False)],
)  # fmt: skip
def test_what_stands_between_layers_or_in_them_is_found_out(kind):
    with pytest.raises(MethodError, match=r"give other outputs|cannot run as one module") as caught:
        _apply(_state(kind))
    assert "leave `exit` out" in caught.value.hint


def test_recurrent_layers_and_layers_apart_are_no_loops():
    with pytest.raises(MethodError, match="each has a state of its own"):
        TieLayers(**LOOP).check_task(Stacked(), SignTask())
    with pytest.raises(MethodError, match="do not run one behind the other"):
        TieLayers(**LOOP, groups=[[0, 2]]).check_task(Encoding(), SignTask())


def test_options_that_do_not_go_together_are_refused():
    with pytest.raises(ValidationError, match="`exit` needs `share: all`"):
        TieLayers(exit="latent_diff")
    with pytest.raises(ValidationError, match="`threshold` has no effect without `exit: latent_diff`"):
        TieLayers(threshold=0.1)


def test_nothing_that_changes_layers_comes_behind_it():
    for step in (DepthSearch(layers=2), TieLayers(**LOOP)):
        with pytest.raises(MethodError, match=r"`steps.0` \(tie_layers\) lets layers share weights before it"):
            refuse_order([TieLayers(**LOOP), step], Encoding(), SignTask())


@pytest.mark.parametrize(
    "change",
    [{"module": "nothing"}, {"groups": [[0, 9]]}, {"groups": [[1, 0]]}, {"steps": [2, 2]}, {"steps": [0]},
     {"threshold": -1.0}, {"batch_axis": "0"}],
)  # fmt: skip
def test_a_record_that_does_not_fit_is_refused(change):
    [record] = _apply(_state("encoder")).state.structure
    with pytest.raises(CheckpointError):
        rebuild(Encoding(), [record | change])
