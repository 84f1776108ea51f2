"""Weights of any checkpoint: nothing in it runs, names and dtypes are brought to the model's, all else is refused."""

from __future__ import annotations

import argparse
import json
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compressor import load_module, load_weights
from compressor.errors import CheckpointError, TaskNote


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(3, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


class Evil:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def trained():
    torch.manual_seed(5)
    return Net()


def is_trained(model):
    return all(torch.equal(value, trained().state_dict()[name]) for name, value in model.state_dict().items())


def renamed(prefix):
    return {prefix + name: value for name, value in trained().state_dict().items()}


@pytest.mark.parametrize(
    "content",
    [
        lambda state: state,
        lambda state: {"model_state": state, "step": 7},
        lambda state: {"a": {"b": state}},
        lambda state: {
            "state_dict": state,
            "hyper_parameters": argparse.Namespace(width=5),
            "loops": {"x": {"y": [1]}},
        },
        lambda state: {"model": state, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}},
    ],
)
def test_a_state_dict_is_found_wherever_it_lies(tmp_path, content):
    torch.save(content(trained().state_dict()), tmp_path / "c.pt")
    assert is_trained(load_weights(Net(), tmp_path / "c.pt"))


def test_a_state_dict_of_another_model_in_the_same_file_does_not_matter(tmp_path):
    torch.save(
        {"net": trained().state_dict(), "small": nn.ModuleDict({"head": nn.Linear(5, 2)}).state_dict()},
        tmp_path / "c.pt",
    )
    with pytest.warns(TaskNote, match="the weights are those of `net`"):
        assert is_trained(load_weights(Net(), tmp_path / "c.pt"))


def test_two_that_fit_equally_ask_for_a_key(tmp_path):
    torch.save({"model": trained().state_dict(), "ema": Net().state_dict()}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="fit the model equally: `model`, `ema`"):
        load_weights(Net(), tmp_path / "c.pt")
    assert is_trained(load_weights(Net(), tmp_path / "c.pt", key="model"))


@pytest.mark.parametrize("prefix", ["net.", "model.encoder.", "module.", "_orig_mod.", "module.model.", "a.b.c."])
def test_a_prefix_before_all_names_is_taken_off_and_said(tmp_path, prefix):
    torch.save(renamed(prefix) | {"criterion.weight": torch.ones(2)}, tmp_path / "c.pt")
    if prefix in ("module.", "_orig_mod."):
        torch.save(renamed(prefix), tmp_path / "c.pt")
    with pytest.warns(TaskNote, match="taken"):
        assert is_trained(load_weights(Net(), tmp_path / "c.pt"))


def test_wrappers_inside_the_names_are_taken_out(tmp_path):
    state = {name.replace("rnn.", "rnn._orig_mod."): value for name, value in trained().state_dict().items()}
    torch.save(state, tmp_path / "c.pt")
    with pytest.warns(TaskNote, match="`_orig_mod` taken out of the names"):
        assert is_trained(load_weights(Net(), tmp_path / "c.pt"))


def test_a_model_that_wraps_the_saved_one_gets_its_prefix(tmp_path):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

    torch.save(trained().state_dict(), tmp_path / "c.pt")
    with pytest.warns(TaskNote, match="`net.` put before all names"):
        assert is_trained(load_weights(Wrapper(), tmp_path / "c.pt").net)


def test_averaged_models_load(tmp_path):
    averaged = torch.optim.swa_utils.AveragedModel(trained())
    torch.save(averaged.state_dict(), tmp_path / "c.pt")
    with pytest.warns(TaskNote, match="`module` taken out"):
        assert is_trained(load_weights(Net(), tmp_path / "c.pt"))


@pytest.mark.parametrize("norm", [nn.utils.parametrizations.weight_norm, "old"])
@pytest.mark.parametrize("target", ["plain", "normed"])
def test_weight_normalisation_is_multiplied_out_or_renamed(tmp_path, norm, target):
    source = trained()
    normed = nn.utils.parametrizations.weight_norm(source.head)
    state = source.state_dict()
    if norm == "old":
        for index, local in enumerate("gv"):
            state[f"head.weight_{local}"] = state.pop(f"head.parametrizations.weight.original{index}")
    torch.save(state, tmp_path / "c.pt")
    model = Net()
    if target == "normed":
        nn.utils.parametrizations.weight_norm(model.head)
    if target == "normed" and norm != "old":
        load_weights(model, tmp_path / "c.pt")
    else:
        with pytest.warns(TaskNote, match="weight normalisation"):
            load_weights(model, tmp_path / "c.pt")
    assert torch.allclose(model.head.weight, normed.weight, atol=1e-7)


def test_a_whole_pickled_module_gives_its_tensors_without_running_anything(tmp_path):
    torch.save({"model": trained(), "evil": Evil(tmp_path / "owned")}, tmp_path / "c.pt")
    assert is_trained(load_weights(Net(), tmp_path / "c.pt"))
    assert not (tmp_path / "owned").exists()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_torchscript_gives_its_weights_by_name(tmp_path):
    torch.jit.script(trained()).save(tmp_path / "c.pt")
    assert is_trained(load_weights(Net(), tmp_path / "c.pt"))


def test_shards_and_folders_of_hugging_face_load(tmp_path):
    state = trained().state_dict()
    names = sorted(state)
    places = {name: f"part-{index % 2}.safetensors" for index, name in enumerate(names)}
    for part in set(places.values()):
        save_file({name: state[name] for name in names if places[name] == part}, tmp_path / part)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert is_trained(load_weights(Net(), tmp_path))
    assert is_trained(load_weights(Net(), tmp_path / "model.safetensors.index.json"))


def test_an_index_that_reaches_outside_its_folder_is_refused(tmp_path):
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    with pytest.raises(CheckpointError, match="names files outside its own folder"):
        load_weights(Net(), index)


@pytest.mark.parametrize("new", [True, False])
def test_a_pickle_that_would_run_code_does_not_run(tmp_path, new):
    torch.save({"weight": Evil(tmp_path / "owned")}, tmp_path / "c.pt", _use_new_zipfile_serialization=new)
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Evil(tmp_path / "owned")))
    for name in ("c.pt", "bare.pt"):
        with pytest.raises(CheckpointError):
            load_weights(Net(), tmp_path / name)
    assert not (tmp_path / "owned").exists()


def test_half_precision_becomes_the_models_and_is_said(tmp_path):
    save_file({name: value.half() for name, value in trained().state_dict().items()}, tmp_path / "c.safetensors")
    with pytest.warns(TaskNote, match="6 tensors converted from float16 to float32"):
        load_weights(Net(), tmp_path / "c.safetensors")


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64])
def test_integers_and_complex_numbers_are_no_float_weights(tmp_path, dtype):
    torch.save({name: value.to(dtype) for name, value in trained().state_dict().items()}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=r"is (int8|complex64), the model's is float32"):
        load_weights(Net(), tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"step,loss\n1,2\n", "is a text file, not a checkpoint: it starts with 'step,loss'"),
        (b"\x89HDF\r\n", "is an HDF5 file"),
        (b"\x00\x01\x02", "cannot be read as a checkpoint"),
    ],
)
def test_what_is_no_checkpoint_is_called_what_it_is(tmp_path, content, what):
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=what) as caught:
        load_weights(Net(), tmp_path / "c.pt")
    assert "trust" not in str(caught.value)


def test_a_missing_or_cut_off_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nothing\.pt"):
        load_weights(Net(), tmp_path / "nothing.pt")
    torch.save(trained().state_dict(), tmp_path / "c.pt")
    whole = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_weights(Net(), tmp_path / "c.pt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("head.bias"), "missing keys: `head.bias`"),
        (lambda state: state.update(x=torch.zeros(1)), "unexpected keys: `x`"),
        (
            lambda state: state.update({"head.weight": torch.zeros(2, 7)}),
            r"`head.weight` has shape \(2, 7\), the model's is \(2, 5\)",
        ),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_with_what_is_wrong(tmp_path, change, message):
    state = trained().state_dict()
    change(state)
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=f"does not fit the model: {message}"):
        load_weights(Net(), tmp_path / "c.pt")


def test_unneeded_keys_can_be_ignored(tmp_path):
    torch.save(trained().state_dict() | {"similarity_weight": torch.ones(1)}, tmp_path / "c.pt")
    assert is_trained(load_weights(Net(), tmp_path / "c.pt", ignore=("similarity_*",)))


def test_a_quantized_model_is_asked_for_in_float(tmp_path):
    torch.save(trained().state_dict() | {"head._packed_params": torch.ones(1)}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="holds a quantized model"):
        load_weights(Net(), tmp_path / "c.pt")


def test_a_saved_extra_state_and_counters_are_no_hindrance(tmp_path):
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    state = model.state_dict() | {"0._extra_state": {"calls": 3}}
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "c.pt")
    other = load_weights(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)), tmp_path / "c.pt")
    assert torch.equal(other[0].weight, model[0].weight)


def test_a_relative_path_is_beside_the_file_that_asks(tmp_path, monkeypatch):
    torch.save(trained().state_dict(), tmp_path / "c.pt")
    (tmp_path / "asks.py").write_text(
        "from compressor import load_weights\n\n\ndef ask(m):\n    return load_weights(m, 'c.pt')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import asks

    assert is_trained(asks.ask(Net()))


def test_a_pickled_module_loads_as_such_only_on_trust(tmp_path):
    torch.save(trained(), tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="`load_weights`, which reads only the tensors"):
        load_module(tmp_path / "m.pt")
    assert is_trained(load_module(tmp_path / "m.pt", trust=True))


@pytest.mark.parametrize("named", ["model.safetensors.index.json", "other.index.json"])
def test_an_index_of_indexes_is_refused_and_not_followed(tmp_path, named):
    index = tmp_path / "model.safetensors.index.json"
    for name in (index.name, "other.index.json"):
        (tmp_path / name).write_text(json.dumps({"weight_map": {"weight": named}}))
    with pytest.raises(CheckpointError, match="names an index among its shards"):
        load_weights(nn.Linear(2, 2), index)
