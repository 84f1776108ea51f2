"""Automata as JSON, DOT and SVG: what they say is what the tables do."""

import json
import xml.etree.ElementTree as ET

import torch

from compressor.nn.automaton import Automaton
from compressor.render.automaton import decisions, dot, edges, svg, tables


def odd(symbols=2):
    """Whether a string has an odd number of the symbol 1."""
    classes = [int(symbol in (1, ord("1"))) for symbol in range(symbols)]
    outputs = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    return Automaton.from_tables(classes, [[0, 1], [1, 0]], outputs, each=False)


def test_json_holds_what_is_needed_to_run_it():
    content = json.loads(tables(odd()))
    state = content["start"]
    for symbol in [1, 0, 1, 1]:
        state = content["next"][state][content["classes"][symbol]]
    assert content["outputs"][state] == odd()(torch.tensor([[1, 0, 1, 1]]))[0].tolist() == [0.0, 1.0]
    assert content["output_for"] == "the whole string"


def test_dot_has_a_node_for_each_state_and_an_edge_for_each_pair():
    text = dot(odd())
    assert '0 [label="0: 0", peripheries=2];' in text
    assert '1 [label="1: 1"];' in text
    assert text.count("->") == len(edges(odd())) == 4
    assert edges(odd()) == {(0, 0): "0", (0, 1): "1", (1, 1): "0", (1, 0): "1"}


def test_codes_are_named_by_their_characters_and_many_are_counted():
    named = edges(odd(128))
    assert named[0, 1] == "1 1"  # the code 1, and that of the character
    assert named[0, 0].endswith("and 118 more")


def test_the_figure_says_what_each_state_decides():
    root = ET.fromstring(svg(odd(), "parity"))
    titles = [part.text for part in root.iter() if part.tag.endswith("title")]
    assert titles[0] == "parity: 2 states, 4 edges; state 0 is the start."
    assert "state 1 decides 1; stays on 0" in titles
    assert "0 to 1: 1" in titles


def test_a_single_score_decides_by_its_sign():
    one = Automaton.from_tables([0, 1], [[0, 1], [1, 0]], torch.tensor([[-1.0], [2.0]]), each=True)
    assert decisions(one) == [0, 1]
