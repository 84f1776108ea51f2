"""The grapheme-to-phoneme sample: dictionary, splits, decoding; with the fetched data, its error rate too."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from compressor.task.loading import load
from tests.samples.fetching import check_missing

FOLDER = Path(__file__).parents[2] / "samples" / "g2p"
sys.path.insert(0, str(FOLDER))

import pronunciations  # noqa: E402

needs_data = pytest.mark.skipif(
    not all((pronunciations.CACHE / name).is_file() for name in (pronunciations.WEIGHTS, pronunciations.DICTIONARY)),
    reason="run samples/g2p/fetch.py first",
)
CMUDICT = """\
aalborg AO1 L B AO0 R G # place, danish
read R EH1 D
read(2) R IY1 D
read's R IY1 D Z
3d TH R IY2 D IY2
"""


def module_of(task):
    return sys.modules[type(task.task).__module__]


def speaker_of(texts):
    """A `forward` that says the first text for a word of one letter, the second for one of two, and so on."""
    phonemes = [[*map(pronunciations.PHONEMES.index, text.split()), pronunciations.END] for text in texts]

    def forward(letters, lengths, said):
        logits = torch.zeros(len(letters), said.shape[1], len(pronunciations.PHONEMES))
        for row, length in enumerate(lengths.tolist()):
            logits[row, -1, phonemes[length - 2][said.shape[1] - 1]] = 1.0
        return logits

    return forward


# --- data ------------------------------------------------------------------------------------------------------------


def test_variants_comments_and_other_signs_are_told_apart():
    assert pronunciations.parse(CMUDICT) == [
        pronunciations.Entry("aalborg", (("AO1", "L", "B", "AO0", "R", "G"),)),
        pronunciations.Entry("read", (("R", "EH1", "D"), ("R", "IY1", "D"))),
    ]


def test_a_word_is_in_one_part_only_and_the_order_of_the_dictionary_does_not_matter():
    entries = [pronunciations.Entry(letters, (("AH0",),)) for letters in map("{:03d}".format, range(97))]
    parts = pronunciations.split(entries, scored=13, validated=11)
    assert [len(part) for part in (parts.scored, parts.validated, parts.learnt)] == [13, 11, 73]
    assert len({entry.word for part in vars(parts).values() for entry in part}) == 97
    assert pronunciations.split(entries[::-1], scored=13, validated=11) == parts


def test_the_alphabets_have_the_sizes_of_the_checkpoint_and_its_signs_in_their_places():
    assert (len(pronunciations.LETTERS), len(pronunciations.PHONEMES)) == (29, 74)
    assert pronunciations.LETTERS[pronunciations.END_OF_WORD] == "</s>"
    assert pronunciations.PHONEMES[pronunciations.START] == "<s>"
    assert pronunciations.PHONEMES[4:8] == ("AA0", "AA1", "AA2", "AE0")
    assert pronunciations.PHONEMES[pronunciations.PHONEMES.index("UH2") + 1] == "UW"


def test_what_the_decoder_reads_is_what_it_says_one_step_later():
    read, said = pronunciations.transcribe([("R", "EH1", "D"), ("AH0",)])
    assert read[0, 0] == pronunciations.START
    assert torch.equal(read[0, 1:], said[0, :-1])
    assert said[1].tolist() == [pronunciations.PHONEMES.index("AH0"), pronunciations.END, 0, 0]
    assert pronunciations.phonemes_of(said[0]) == ("R", "EH1", "D")


def test_the_nearest_pronunciation_counts():
    entry = pronunciations.parse(CMUDICT)[1]
    assert pronunciations.errors(("R", "IY1", "D"), entry) == 0
    assert pronunciations.errors(("IY1", "D", "Z"), entry) == 2


# --- task ------------------------------------------------------------------------------------------------------------


def test_decoding_gives_what_was_said_up_to_the_end_and_at_most_20_phonemes():
    module = module_of(load(str(FOLDER / "task.py")))
    entries = [pronunciations.Entry(word, (("B",),)) for word in ("abc", "a", "ab")]
    found = module.decode(speaker_of(["B D", "D", "B " * 31]), entries)
    assert found == [("B",) * 20, ("B", "D"), ("D",)]


def test_the_mean_of_the_words_scores_is_the_error_rate_over_all_phonemes():
    module = module_of(load(str(FOLDER / "task.py")))
    entries = [pronunciations.Entry("a", (("B", "D"),)), pronunciations.Entry("ab", (("D", "B", "B", "B"),))]
    evaluation = module.score(speaker_of(["B D", "D"]), entries)  # no error in 2 phonemes, 3 in 4
    assert float(evaluation.per_sample.mean()) == pytest.approx(3 / 6)
    assert evaluation.parts["words with an error"] == 0.5


def test_checkpoint_loads_into_the_grus_gate_by_gate(monkeypatch, tmp_path):
    monkeypatch.setattr(pronunciations, "CACHE", tmp_path)
    random = np.random.default_rng(0)
    sizes = {"emb": (29, 256), "w_ih": (768, 256), "w_hh": (768, 256), "b_ih": (768,), "b_hh": (768,)}
    arrays = {f"{side}_{name}": random.normal(size=size) for side in ("enc", "dec") for name, size in sizes.items()}
    arrays |= {"dec_emb": random.normal(size=(74, 256)), "fc_w": random.normal(size=(74, 256)), "fc_b": np.zeros(74)}
    np.savez(tmp_path / pronunciations.WEIGHTS, **{name: array.astype(np.float32) for name, array in arrays.items()})
    model = load(str(FOLDER / "task.py")).model()
    assert np.array_equal(model.encoder.weight_hh_l0.detach().numpy(), arrays["enc_w_hh"].astype(np.float32))
    assert np.array_equal(model.decoder.bias_ih_l0.detach().numpy(), arrays["dec_b_ih"].astype(np.float32))


def test_letters_behind_a_words_end_and_later_phonemes_change_nothing():
    torch.manual_seed(0)
    model = module_of(load(str(FOLDER / "task.py"))).G2p().eval()
    letters, lengths = pronunciations.spell(["ab", "abcdefg"])
    said = torch.tensor([[2, 22, 24], [2, 24, 22]])
    with torch.no_grad():
        together, alone = model(letters, lengths, said), model(letters[:1, :3], lengths[:1], said[:1, :2])
    assert torch.allclose(together[:1, :2], alone, atol=1e-6)


def test_task_without_fetched_data_says_how_to_fetch_it(monkeypatch, tmp_path):
    check_missing(monkeypatch, pronunciations, tmp_path, "g2p", load(str(FOLDER / "task.py")).model, "checkpoint20.npz")


@needs_data
def test_original_model_says_most_words_as_the_dictionary_does():
    task = load(str(FOLDER / "task.py"))
    with torch.no_grad():
        evaluation = module_of(task).score(task.model(), pronunciations.words().validated[:101])
    assert float(evaluation.per_sample.mean()) < 0.14


@needs_data
def test_batches_hold_only_learnt_words():
    task = load(str(FOLDER / "task.py"))
    (letters, lengths, said), target = next(iter(task.batches(torch.Generator().manual_seed(0))))
    learnt = {entry.word for entry in pronunciations.words().learnt}
    spelt = ["".join(pronunciations.LETTERS[i] for i in row[: n - 1]) for row, n in zip(letters, lengths, strict=True)]
    assert len(spelt) == 64
    assert learnt.issuperset(spelt)
    assert torch.equal(said[:, 1:][target[:, 1:] > 0], target[:, :-1][target[:, 1:] > 0])
