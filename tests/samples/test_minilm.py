"""The MiniLM sample: word pieces, the encoder, what is scored; with the fetched data, the original's figures too."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from compressor.task.loading import load
from tests.samples.fetching import check_missing

FOLDER = Path(__file__).parents[2] / "samples" / "minilm"
sys.path.insert(0, str(FOLDER))

import bert  # noqa: E402
import sentences  # noqa: E402
import similarity  # noqa: E402
import wordpiece  # noqa: E402

needs_data = pytest.mark.skipif(
    not all(
        (sentences.CACHE / name).is_file() for name in (sentences.WEIGHTS, sentences.ARCHIVE, sentences.EMBEDDINGS)
    ),
    reason="run samples/minilm/fetch.py first",
)
VOCABULARY = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "un",
    "##aff",
    "##able",
    "affable",
    "want",
    "##ed",
    "##a",
    ",",
    "cafe",
]
CUTTER = wordpiece.WordPiece({piece: number for number, piece in enumerate(VOCABULARY)})
KNOWN = {  # BertModel of transformers 5.24 on the package's own checkpoint, mean of the last states, length 1
    "This is an example sentence": [0.067657, 0.063496, 0.048713, 0.079305, 0.037448, 0.002653],
    "Each sentence is converted": [0.086439, 0.102763, 0.005395, 0.002044, -0.009963, 0.025386],
}


@pytest.fixture(scope="module")
def task():
    return load(str(FOLDER / "task.py"))


# --- word pieces -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "pieces"),
    [
        ("unaffable", ["un", "##aff", "##able"]),
        ("wanted", ["want", "##ed"]),
        ("affable", ["affable"]),
        ("affables", ["[UNK]"]),  # its start alone does not count
        ("un" + "a" * 99, ["[UNK]"]),
        ("un" + "a" * 98, ["un", *["##a"] * 98]),
    ],
)
def test_longest_piece_first_and_a_rest_that_does_not_fit_makes_the_word_unknown(word, pieces):
    assert CUTTER.cut(word) == pieces


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Café,\tWANTED", ["cafe", ",", "wanted"]),
        ("isn't $5.00", ["isn", "'", "t", "$", "5", ".", "00"]),
        ("ab漢字c", ["ab", "漢", "字", "c"]),
        ("a\u200bb\x00c\u00a0d", ["abc", "d"]),
        ("“so – so”", ["“", "so", "–", "so", "”"]),
        ("  ", []),
    ],
)
def test_words_are_lower_case_without_accents_and_signs_stand_alone(text, words):
    assert wordpiece.words(text) == words


def test_a_long_text_is_cut_and_keeps_its_end_sign():
    numbers = CUTTER.numbers("want " * 400)
    assert len(numbers) == wordpiece.LONGEST
    assert (numbers[0], numbers[-1]) == (2, 3)
    assert set(numbers[1:-1]) == {8}


@given(st.text(max_size=40))
def test_words_are_never_empty_and_cutting_them_again_changes_nothing(text):
    words = wordpiece.words(text)
    assert all(words)
    assert wordpiece.words(" ".join(words)) == words


# --- the encoder -----------------------------------------------------------------------------------------------------


def small(layers=2):
    torch.manual_seed(0)
    return bert.SentenceEncoder(words=31, width=12, num_heads=3, hidden=17, layers=layers).eval()


def test_attention_equals_pytorchs_with_the_same_weights():
    torch.manual_seed(0)
    ours, theirs = bert.Attention(12, 3).double(), torch.nn.MultiheadAttention(12, 3, batch_first=True).double()
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
    states = torch.randn(5, 7, 12, dtype=torch.float64)
    padding = torch.arange(7) >= torch.tensor([7, 5, 1, 3, 2])[:, None]
    bias = torch.zeros(5, 1, 1, 7, dtype=torch.float64).masked_fill(padding[:, None, None], bert._MASKED)
    expected = theirs(states, states, states, key_padding_mask=padding, need_weights=False)[0]
    assert torch.allclose(ours(states, bias), expected, atol=1e-12)


def test_padding_and_what_stands_in_it_change_nothing():
    model, pieces = small(), torch.randint(31, (1, 5), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(1, 5, dtype=torch.long)
    longer = torch.cat([pieces, torch.full((1, 6), 30)], dim=1)
    with torch.no_grad():
        alone = model(pieces, mask)
        within = model(longer, torch.cat([mask, torch.zeros(1, 6, dtype=torch.long)], dim=1))
    assert torch.allclose(alone, within, atol=1e-6)
    assert float(alone.norm()) == pytest.approx(1.0, abs=1e-6)


def test_checkpoint_names_cover_every_parameter_and_the_pairs_embedding_goes_to_the_positions():
    model, checkpoint = small(layers=2), {}
    back = {ours: theirs for theirs, ours in bert._NAMES.items()}
    for name, tensor in model.state_dict().items():
        module, kind = name.rsplit(".", 1)
        layer = module.split(".", 2) if module.startswith("layers.") else None
        theirs = f"encoder.layer.{layer[1]}.{back[layer[2]]}" if layer else back[module]
        checkpoint[f"{theirs}.{kind}"] = tensor.clone()
    checkpoint["embeddings.token_type_embeddings.weight"] = torch.stack([torch.full((12,), 0.25), torch.zeros(12)])
    checkpoint |= {"pooler.dense.weight": torch.zeros(12, 12), "embeddings.position_ids": torch.arange(512)[None]}
    state = bert.state_dict(checkpoint)
    assert state.keys() == model.state_dict().keys()
    assert torch.equal(state["positions.weight"], model.positions.weight + 0.25)
    assert torch.equal(state["layers.1.narrow.weight"], model.layers[1].narrow.weight)


# --- sentences -------------------------------------------------------------------------------------------------------


def test_lines_are_parsed_and_quotation_marks_restored():
    text = "7\t-0.6\tIt is ''tepid'' &amp; long\n8\t3.5\tGreat.\n"
    assert sentences.parse(text) == [
        sentences.Sentence('It is "tepid" & long', -0.6),
        sentences.Sentence("Great.", 3.5),
    ]


def test_no_wording_is_in_two_parts_and_neutral_sentences_are_in_none():
    rated = [sentences.Sentence(f"Sentence {i % 90}{'!' * (i // 90)}", 2.0 if i % 2 else -1.0) for i in range(97)]
    parts = sentences.split([*rated, sentences.Sentence("so so", 0.49)], scored=13, validated=11)
    assert [len(part) for part in (parts.scored, parts.validated, parts.learnt)] == [13, 11, 66]
    assert len({"".join(filter(str.isalnum, s.text)) for part in vars(parts).values() for s in part}) == 90
    assert sentences.split(rated[:90], scored=13, validated=11).scored == parts.scored


def test_embeddings_come_back_in_the_order_of_the_sentences(monkeypatch):
    monkeypatch.setattr(sentences, "tokenizer", lambda: CUTTER)
    monkeypatch.setattr(sentences, "BATCH", 3)
    texts = ["want " * count for count in (5, 1, 4, 2, 3, 6, 0)]
    rows = sentences.embed(lambda _, mask: mask.sum(1, keepdim=True).float(), texts)
    assert rows[:, 0].tolist() == [7, 3, 6, 4, 5, 8, 2]


# --- what is scored --------------------------------------------------------------------------------------------------


def test_probe_minimises_the_penalised_squared_error():
    random = torch.Generator().manual_seed(0)
    rows, good = torch.randn(41, 5, generator=random, dtype=torch.float64), torch.rand(41, generator=random) > 0.5
    probe = similarity.fit(rows, good, penalty=0.7).requires_grad_()
    signs = good.double() * 2 - 1
    error = ((rows @ probe[:-1] + probe[-1] - signs) ** 2).sum() + 0.7 * (probe[:-1] ** 2).sum()
    assert torch.allclose(torch.autograd.grad(error, probe)[0], torch.zeros(6, dtype=torch.float64), atol=1e-9)


def test_labels_that_a_direction_tells_are_found_and_coin_tosses_are_not():
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(500, 7, generator=random)
    assert similarity.cross_validated(rows, rows[:, 3] > 0.4) > 0.9
    assert 0.4 < similarity.cross_validated(rows, torch.rand(500, generator=random) > 0.5) < 0.6


def test_a_rotation_keeps_every_similarity_and_the_cosine_sees_it():
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(31, 6, generator=random, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=random, dtype=torch.float64))[0]
    assert similarity.rank_correlation(rows @ turn, rows) == pytest.approx(1.0, abs=1e-4)
    assert similarity.mean_cosine(rows @ turn, rows) < 0.9
    assert similarity.mean_cosine(3 * rows, rows) == pytest.approx(1.0)


def test_rank_correlation_is_scipys():
    from scipy import stats

    one, two = torch.randn(2, 23, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = stats.spearmanr(similarity._pairs(one), similarity._pairs(two)).statistic
    assert similarity.rank_correlation(one, two) == pytest.approx(expected, abs=1e-9)


# --- the task --------------------------------------------------------------------------------------------------------


def test_task_without_fetched_data_says_how_to_fetch_it(monkeypatch, tmp_path, task):
    check_missing(monkeypatch, sentences, tmp_path, "minilm", task.model, "model.safetensors")


def test_example_has_sentences_of_several_lengths_up_to_the_one_asked_for(task):
    pieces, mask = task.example(7, 13)
    assert pieces.shape == mask.shape == (7, 13)
    assert mask.sum(1).max() == 13
    assert len(set(mask.sum(1).tolist())) > 1
    assert bool((pieces[mask == 0] == 0).all())
    assert mask.sum(1).min() >= 2


def test_loss_is_nothing_at_the_originals_embeddings_and_two_at_their_opposite(task):
    target = torch.nn.functional.normalize(torch.randn(3, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    assert float(task.loss(target, target)) == pytest.approx(0.0, abs=1e-6)
    assert float(task.loss(-target, target)) == pytest.approx(2.0)


@needs_data
def test_embeddings_are_those_of_bert_in_the_transformers_package(task):
    with torch.no_grad():
        rows = sentences.embed(task.model(), list(KNOWN))
    assert torch.allclose(rows[:, :6], torch.tensor(list(KNOWN.values())), atol=2e-6)


@needs_data
def test_kept_embeddings_are_the_originals_and_have_the_figures_of_the_readme(task):
    module = sys.modules[type(task.task).__module__]
    part, kept = sentences.reviews().scored, module.originals()["scored"]
    with torch.no_grad():
        again = sentences.embed(task.model(), [sentence.text for sentence in part[:5]])
    assert torch.allclose(again, kept[:5], atol=1e-5)
    good = module.good(part)
    assert float(similarity.correct(module.probe(), kept, good).mean()) == pytest.approx(0.786, abs=1e-6)
    assert similarity.cross_validated(kept, good) == pytest.approx(0.751, abs=0.002)


@needs_data
def test_batches_hold_learnt_sentences_with_the_originals_embeddings_of_them(task):
    (pieces, mask), target = next(iter(task.batches(torch.Generator().manual_seed(0))))
    with torch.no_grad():
        assert torch.allclose(task.model()(pieces, mask), target, atol=1e-5)
