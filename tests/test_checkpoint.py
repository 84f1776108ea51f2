"""The weights and the record in a run folder, which may come from anywhere."""

import json
import re

import pytest
import torch
from torch import nn

from compressor.checkpoint import load, save
from compressor.errors import CheckpointError


class Small:
    """As much of a task as a rebuilt model needs."""

    attention = {}

    def model(self):
        return nn.Sequential(nn.Linear(3, 5), nn.GRU(5, 7))


@pytest.fixture
def folder(tmp_path):
    save(tmp_path, Small().model(), [])
    return tmp_path


def refused(folder):
    with pytest.raises(CheckpointError) as error:
        load(folder, Small())
    assert error.value.hint
    return error.value.message


def test_tied_weights_are_saved_once(tmp_path):
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    save(tmp_path, net, [])
    assert '"1.weight": "0.weight"' in (tmp_path / "model.json").read_text()


def test_what_is_saved_is_loaded(folder):
    assert load(folder, Small())[0].weight.shape == (5, 3)


@pytest.mark.parametrize("kept", [0, 7, 8, 40, 0.5, -1])
def test_weights_that_are_cut_off_are_refused(folder, kept):
    file = folder / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    assert "cannot be read as a checkpoint" in refused(folder)


@pytest.mark.parametrize(
    "text",
    ["", "null", "[]", "[" * 10**5, '{"a":' * 10**5, "\x00", '{"schema_version": 1}', '{"schema_version": 2}'],
)
def test_a_record_that_is_damaged_or_deep_is_refused(folder, text):
    (folder / "model.json").write_text(text)
    assert "model.json" in refused(folder)


@pytest.mark.parametrize(
    "part",
    [
        7,
        {},
        {"kind": []},
        {"kind": "eval"},
        {"kind": "resize"},
        {"kind": "resize", "shapes": 3},
        {"kind": "resize", "shapes": {"0.weight": [5, -3]}},
        {"kind": "resize", "shapes": {"0.weight": [10**7, 10**7]}},
        {"kind": "resize", "shapes": {"0.__class__": [5, 3]}},
        {"kind": "replace", "module": "0", "with": "low_rank_linear", "record": {}},
        {"kind": "replace", "module": "0", "with": ["low_rank_linear"], "record": {}},
        {"kind": "replace", "module": "", "with": "low_rank_linear", "record": {}},
        {"kind": "replace", "module": "1", "with": "uneven_recurrent", "record": {"layers": 2**23}},
        {"kind": "heads", "module": "0", "heads": 3},
        {"kind": "sizes"},
        {"kind": "sizes", "sizes": {"1.hidden_size": 10**30}},
        {"kind": "sizes", "sizes": {"1.forward": 1}},
        {"kind": "edges"},
        {"kind": "edges", "module": "9", "inputs": {}, "outputs": {}},
        {"kind": "edges", "module": "1", "inputs": {"0": {"axis": 10**30}}, "outputs": 3},
        {"kind": "edges", "module": "1", "inputs": [], "outputs": {}},
    ],
    ids=str,
)
def test_a_record_that_was_tampered_with_is_refused(folder, part):
    file = folder / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "structure": [part]}))
    assert re.search("record|structure", refused(folder))


@pytest.mark.parametrize("aliases", [{"0.weight": 3}, {"0.weight": "gone"}, {"new": "0.bias"}])
def test_aliases_that_do_not_fit_are_refused(folder, aliases):
    file = folder / "model.json"
    weights = folder / "model.safetensors"
    file.write_text(json.dumps({**json.loads(file.read_text()), "aliases": aliases}))
    from safetensors.torch import load_file, save_file

    state = load_file(weights)
    state.pop("0.weight")
    save_file(state, weights)
    assert re.search("`aliases`|does not fit", refused(folder))


def test_weights_of_another_type_or_shape_are_refused(folder):
    from safetensors.torch import save_file

    save_file({"0.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    assert "does not fit the model" in refused(folder)
