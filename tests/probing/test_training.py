"""Each task is learned by an architecture that should learn it, and not by one that cannot."""

import dataclasses

import pytest
import torch

from compressor.errors import UsageError
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.graphs.random_graphs import watts_strogatz
from compressor.probing.architecture import WORDS, Encoder, GraphStack, Recurrent, named
from compressor.probing.associative_recall import AssociativeRecall
from compressor.probing.long_gap import LongGap
from compressor.probing.network import Network, sinusoids
from compressor.probing.state_tracking import StateTracking
from compressor.probing.training import Effort, train

RECALL, STATE, GAP = AssociativeRecall(6, 1, 4), StateTracking(length=11), LongGap(length=13)
SHORT = Effort(steps=200, scored=256)
SEE_THE_PRESENT_ONLY = Encoder((), 1)
GRAPH = GraphStack("gru", watts_strogatz(7, 2, 1.0, 0), 11, width=64)


@pytest.mark.parametrize(
    ("word", "task"),
    [("attention", RECALL), ("gru", STATE), ("lstm", STATE), ("lstm", GAP), ("aaren", GAP)],
    ids=lambda part: getattr(part, "name", part),
)
def test_a_task_is_learned_by_what_can_learn_it(word, task):
    trained = train(named(word), task, task.length, SHORT, seed=0)
    assert trained.accuracy > 0.97
    assert trained.steps < SHORT.steps


@pytest.mark.parametrize(
    ("architecture", "task"),
    [(named("aaren"), RECALL), (named("attention"), STATE)]
    + [(SEE_THE_PRESENT_ONLY, task) for task in (RECALL, STATE, GAP)],
    ids=lambda part: getattr(part, "name", None) or ("no memory" if part == SEE_THE_PRESENT_ONLY else part.label),
)
def test_a_task_is_not_learned_by_what_cannot(architecture, task):
    trained = train(architecture, task, task.length, SHORT, seed=0)
    assert trained.accuracy < task.chance(task.length) + 0.15
    assert trained.steps == SHORT.steps


def test_the_same_arguments_train_the_same_network_and_leave_torch_as_it_was():
    effort = Effort(steps=7, scored=31)
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    first, again = (train(named("gru"), STATE, 23, effort, seed=3) for _ in range(2))
    assert first == again
    assert first != train(named("gru"), STATE, 23, effort, seed=4)
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_patience_multiplies_the_steps():
    patient = dataclasses.replace(STATE, patience=3)
    assert train(SEE_THE_PRESENT_ONLY, patient, 11, Effort(steps=5, scored=31), seed=0).steps == 15


def test_training_that_diverges_is_scored_as_it_is():
    trained = train(named("rnn_relu"), STATE, 11, Effort(steps=60, lr=1e30, scored=31), seed=0)
    assert 0.0 <= trained.accuracy < 0.5
    assert trained.steps < 60


def test_zeros_of_a_graph_stay_zeros_in_training(monkeypatch):
    networks = []
    monkeypatch.setattr(
        "compressor.probing.training.Network", lambda *options: networks.append(Network(*options)) or networks[0]
    )
    train(GRAPH.scaled(32), STATE, 11, Effort(steps=3, scored=31), seed=0)
    stack = networks[0].layers.layer.stack
    assert stack.masks()
    for name, mask in stack.masks().items():
        assert torch.equal(stack.get_parameter(name) != 0, mask)


@pytest.mark.parametrize("architecture", [*map(named, WORDS), GRAPH.scaled(32)], ids=lambda part: part.label)
def test_an_output_depends_on_no_later_token(architecture):
    torch.manual_seed(0)
    network = Network(architecture, 32, tokens=5, classes=3)
    tokens = torch.randint(5, (2, 11))
    changed = tokens.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 5
    with torch.no_grad():
        before, after = network(tokens), network(changed)
    assert before.shape == (2, 11, 3)
    torch.testing.assert_close(before[:, :7], after[:, :7], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(before[:, 7:], after[:, 7:], atol=1e-4)


def test_aaren_differs_from_attention_by_its_query_alone():
    attention, aaren = (Network(named(word), 32, 5, 3) for word in ("attention", "aaren"))
    sizes = [sum(part.numel() for part in network.parameters()) for network in (attention, aaren)]
    assert sizes[1] - sizes[0] == 2 * 32
    assert any(isinstance(module, AarenAttention) for module in aaren.modules())


@pytest.mark.parametrize(("heads", "width", "fitting"), [(4, 32, 4), (12, 32, 4), (3, 32, 2), (5, 24, 3), (1, 8, 1)])
def test_heads_are_cut_to_what_the_width_holds(heads, width, fitting):
    assert Encoder(("attention",), heads).scaled(width).heads == fitting


def test_units_of_a_graph_go_with_the_width():
    assert [GRAPH.scaled(width).units_per_node for width in (64, 32, 2)] == [11, 6, 1]


@pytest.mark.parametrize("architecture", [GRAPH, Encoder(("attention", "aaren"), 4), Recurrent("gru", 1)])
def test_facts_tell_architectures_apart(architecture):
    import json

    others = [GRAPH.scaled(32), named("attention"), Recurrent("gru", 2)]
    text = json.dumps(architecture.facts(), sort_keys=True)
    assert text not in [json.dumps(other.facts(), sort_keys=True) for other in others]


def test_positions_are_sines_and_cosines_and_differ():
    found = sinusoids(128, 31)
    assert found.shape == (128, 31)
    assert float(found[3, 0]) == pytest.approx(0.14112, abs=1e-5)
    assert float(torch.cdist(found, found).fill_diagonal_(9.0).min()) > 0.05


def test_a_word_that_is_no_architecture_is_refused():
    with pytest.raises(
        UsageError, match=r"unknown architecture `mamba`\nhint: architectures: attention, aaren, rnn_tanh"
    ):
        named("mamba")
