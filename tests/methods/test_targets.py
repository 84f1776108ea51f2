from __future__ import annotations

import pytest
from torch import nn
from torch.nn.utils import parametrizations

from compressor.errors import MethodError
from compressor.methods.targets import select_layers, select_weights
from compressor.nn.patterns import check_patterns


class Speech(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 5, 7)
        self.norm = nn.LayerNorm((5, 11))
        self.encoder = nn.ModuleDict({"lstm": nn.LSTM(5, 7, proj_size=3), "gru": nn.GRU(3, 2, bidirectional=True)})
        self.cell = nn.RNNCell(2, 3)
        self.head = nn.Linear(3, 13)


def names(targets=None, ignore=(), matrices="both", model=None):
    return list(select_weights(model or Speech(), targets, ignore, matrices).names)


def test_without_targets_all_matrices_of_recurrent_layers_and_cells_are_chosen():
    assert names() == [
        "encoder.lstm.weight_ih_l0",
        "encoder.lstm.weight_hh_l0",
        "encoder.lstm.weight_hr_l0",
        "encoder.gru.weight_ih_l0",
        "encoder.gru.weight_hh_l0",
        "encoder.gru.weight_ih_l0_reverse",
        "encoder.gru.weight_hh_l0_reverse",
        "cell.weight_ih",
        "cell.weight_hh",
    ]


def test_matrices_tells_input_from_hidden_and_counts_the_projection_as_hidden():
    assert names(["encoder.lstm"], matrices="i2h") == ["encoder.lstm.weight_ih_l0"]
    assert names(["encoder.lstm"], matrices="h2h") == ["encoder.lstm.weight_hh_l0", "encoder.lstm.weight_hr_l0"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("head", ["head.weight"]),
        ("head.weight", ["head.weight"]),
        ("c*.weight", ["conv.weight"]),
        ("*_reverse", ["encoder.gru.weight_ih_l0_reverse", "encoder.gru.weight_hh_l0_reverse"]),
        (r"re:(conv|head)\.w.*", ["conv.weight", "head.weight"]),
        ("re:cell", ["cell.weight_ih", "cell.weight_hh"]),
    ],
)
def test_patterns_match_whole_names_of_weights_or_of_modules_that_hold_them(pattern, expected):
    assert names([pattern]) == expected


def test_ignore_takes_out_what_targets_names():
    assert names(["encoder", "head"], ["encoder.lstm", "*hh*"]) == [
        "encoder.gru.weight_ih_l0",
        "encoder.gru.weight_ih_l0_reverse",
        "head.weight",
    ]


def test_what_was_left_alone_has_its_reason():
    selection = select_weights(Speech(), ["cell", "head"], ["head"], "h2h")
    reasons = {skip.name: skip.reason for skip in selection.skipped}
    assert reasons["conv.weight"] == "not named in `targets`"
    assert reasons["head.weight"] == "named in `ignore`"
    assert reasons["cell.weight_ih"] == "`matrices: h2h` leaves i2h weights alone"


def test_a_weight_that_two_modules_share_is_one_candidate_under_both_names():
    model = nn.ModuleDict({"embedding": nn.Embedding(11, 3), "head": nn.Linear(3, 11)})
    model["head"].weight = model["embedding"].weight
    for pattern in ("embedding", "head", "head.weight"):
        assert names([pattern], model=model) == ["embedding.weight"]


def test_a_pattern_that_matches_nothing_names_candidates_and_the_nearest():
    with pytest.raises(MethodError) as caught:
        names(["head", "encoder.lst"])
    assert caught.value.message == "`targets`: `encoder.lst` matches nothing in the model"
    assert caught.value.hint.startswith("did you mean `encoder.lstm`? candidates: `conv.weight`, `encoder.lstm.weight")


def test_a_pattern_that_matches_only_a_bias_or_norm_says_so():
    with pytest.raises(MethodError, match=r"`\*\.bias` matches only `conv.bias`, .*, which cannot be pruned"):
        names(["*.bias"])
    with pytest.raises(MethodError, match=r"`norm` matches only `norm`, which cannot be pruned"):
        names(["norm"])


def test_a_choice_that_leaves_nothing_gives_the_reasons():
    with pytest.raises(MethodError, match=r"nothing is left to prune \(.*head\.weight: named in `ignore`\)"):
        names(["head"], ["*"])


def test_a_model_without_recurrent_layers_is_refused_with_what_could_be_named():
    with pytest.raises(MethodError) as caught:
        names(model=nn.Sequential(nn.Linear(3, 5)))
    assert "the model has no recurrent layer" in caught.value.message
    assert caught.value.hint == "name other weights in `targets`: `0.weight`"


def test_weights_that_are_computed_from_others_are_no_candidates():
    model = nn.Sequential(parametrizations.weight_norm(nn.GRU(3, 5), "weight_hh_l0"))
    assert names(model=model) == ["0.weight_ih_l0"]


def test_layers_are_chosen_by_their_own_names():
    assert select_layers(Speech(), None, ["*lstm", "cell"]).names == ("encoder.gru",)
    assert select_layers(nn.GRU(3, 5), None, ()).names == ("",)
    assert select_layers(Speech(), ["conv", "head"], ()).names == ("conv", "head")
    with pytest.raises(MethodError, match="`norm` matches only `norm`, which cannot be pruned"):
        select_layers(Speech(), ["norm"], ())


def test_a_model_without_layers_to_shrink_is_refused():
    with pytest.raises(MethodError, match=r"no recurrent layer \(nn.RNN, nn.GRU, nn.LSTM, a cell of theirs, or one"):
        select_layers(nn.Sequential(nn.Linear(3, 5)), None, ())


@pytest.mark.parametrize(("pattern", "message"), [("", "empty"), ("re:", "empty"), ("re:(", "not a regular expr")])
def test_patterns_that_cannot_match_are_refused(pattern, message):
    with pytest.raises(ValueError, match=message):
        check_patterns([pattern])
