"""Checkpoints come from strangers: nothing in them runs, and what does not fit is said in full."""

import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compressor import load_module, load_weights
from compressor.checkpoint import save
from compressor.errors import CheckpointError, OutputError
from compressor.files import write_whole


class Evil:
    """Unpickling it would create a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def _net():
    torch.manual_seed(5)
    return nn.Linear(3, 2)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model_state": s, "step": 7}, lambda s: {"a": {"b": s}}])
def test_a_state_dict_is_found_plain_or_under_a_key(tmp_path, wrap):
    state = {name: value + 1 for name, value in _net().state_dict().items()}
    torch.save(wrap(state), tmp_path / "c.pt")
    key = "a.b" if "a" in wrap(state) else None
    assert torch.equal(load_weights(_net(), tmp_path / "c.pt", key=key).weight, state["weight"])


def test_safetensors_and_data_parallel_names_load_too(tmp_path):
    state = {name: value + 1 for name, value in _net().state_dict().items()}
    save_file(state, tmp_path / "c.safetensors")
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "c.pt")
    for file in ("c.safetensors", "c.pt"):
        assert torch.equal(load_weights(_net(), tmp_path / file).bias, state["bias"])


def test_a_pickle_that_would_run_code_is_refused_and_does_not_run(tmp_path):
    torch.save({"weight": Evil(tmp_path / "owned")}, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match="loading it would run code from the file, so it was not loaded"):
        load_weights(_net(), tmp_path / "c.pt")
    (tmp_path / "bare.pt").write_bytes(pickle.dumps(Evil(tmp_path / "owned")))
    with pytest.raises(CheckpointError):
        load_weights(_net(), tmp_path / "bare.pt")
    assert not (tmp_path / "owned").exists()


def test_a_pickled_module_loads_only_on_trust(tmp_path):
    torch.save(_net(), tmp_path / "m.pt")
    with pytest.raises(CheckpointError, match="`load_weights`, or pass `trust=True`"):
        load_module(tmp_path / "m.pt")
    assert torch.equal(load_module(tmp_path / "m.pt", trust=True).weight, _net().weight)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"weight": torch.zeros(2, 3)}, "missing keys: `bias`"),
        ({"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "x": torch.zeros(1)}, "unexpected keys: `x`"),
        ({"weight": torch.zeros(2, 5), "bias": torch.zeros(2)}, "`weight` has shape (2, 5), the model's is (2, 3)"),
    ],
)
def test_a_state_dict_that_does_not_fit_is_refused_with_what_is_wrong(tmp_path, state, message):
    torch.save(state, tmp_path / "c.pt")
    with pytest.raises(CheckpointError) as caught:
        load_weights(_net(), tmp_path / "c.pt")
    assert f"does not fit Linear: {message}" in caught.value.message


def test_unneeded_keys_can_be_ignored(tmp_path):
    torch.save(_net().state_dict() | {"similarity_weight": torch.ones(1)}, tmp_path / "c.pt")
    assert load_weights(_net(), tmp_path / "c.pt", ignore=("similarity_*",)).in_features == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [({"a": {"x": torch.ones(1)}, "b": {"y": torch.ones(1)}}, "several: a, b"), ({"step": 3}, "none is one")],
)
def test_a_checkpoint_without_one_clear_state_dict_asks_for_a_key(tmp_path, content, message):
    torch.save(content, tmp_path / "c.pt")
    with pytest.raises(CheckpointError, match=message):
        load_weights(_net(), tmp_path / "c.pt")


def test_a_missing_or_cut_off_file_is_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*nothing\.pt"):
        load_weights(_net(), tmp_path / "nothing.pt")
    torch.save(_net().state_dict(), tmp_path / "c.pt")
    whole = (tmp_path / "c.pt").read_bytes()
    (tmp_path / "c.pt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="cannot be read as a checkpoint"):
        load_weights(_net(), tmp_path / "c.pt")


def test_tied_weights_are_saved_once(tmp_path):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    save(tmp_path, net, [])
    assert '"1.weight": "0.weight"' in (tmp_path / "model.json").read_text()


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    (tmp_path / "kept").write_text("older")
    with pytest.raises(OutputError, match=r"cannot write .*missing/kept: No such file or directory"):
        write_whole(tmp_path / "missing" / "kept", b"newer")
    write_whole(tmp_path / "kept", b"newer")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_bytes() == b"newer"
