"""The Reber grammar: valid strings, eight families of invalid ones, and the split into training and test data.

The automaton reads `B`, walks from state 1 until it takes an edge into state 6, and reads `E`. Each state on the way
has two edges, both equally likely in a random walk, so that a string of length n has the probability 2**-(n - 2).
An invalid family is the same automaton with other letters on its edges; no string of one is valid.

Source: the data set of arXiv 2407.20601 (Darji, 2021), section 3: 12 500 valid and 12 500 invalid strings.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

EDGES = ((1, 2), (1, 3), (2, 2), (2, 4), (3, 3), (3, 5), (4, 3), (4, 6), (5, 4), (5, 6))
"""(from, to) of each edge between `B` and `E`, in the order in which a family's letters are written."""

START, END = 1, 6
SHORTEST = 11
"""No string of the data set is shorter."""
COMPLETE_UP_TO = 20
"""Every valid string of length 11..20 is in the data set; longer ones are drawn."""
VALID = "TPSXTVXSPV"
VALID_COUNT = 12_500
TRAIN_COUNT = 18_750


@dataclass(frozen=True)
class InvalidFamily:
    """How many strings of a family there are, and the letters on its edges."""

    count: int
    letters: str


INVALID = (
    InvalidFamily(1500, "PTSXTVXSPV"),  # the first branch swapped: only the second letter is wrong
    InvalidFamily(1500, "TPSXTVPVXS"),
    InvalidFamily(500, "TPXSVTXSPV"),  # loop and exit swapped
    InvalidFamily(2000, "TPTVSXXSPV"),  # the loops exchanged between the two branches
    InvalidFamily(2000, "ACDFJIHGLK"),
    InvalidFamily(2000, "MNOQWVURZY"),
    InvalidFamily(1500, "MNOQCAURFD"),
    InvalidFamily(1500, "QOMNCAURFD"),
)
FAMILIES = len(INVALID)


@dataclass(frozen=True)
class Sample:
    """A string and the family it is from: 0 for valid, 1..8 for invalid."""

    text: str
    family: int

    @property
    def valid(self) -> bool:
        """True where the string is of the grammar."""
        return self.family == 0


Steps = dict[int, tuple[tuple[str, int], ...]]
"""State -> its two (letter, next state)."""


@cache
def steps(letters: str) -> Steps:
    """The automaton with these letters on its edges (in the order of `EDGES`)."""
    table: dict[int, list[tuple[str, int]]] = {}
    for (source, target), letter in zip(EDGES, letters, strict=True):
        table.setdefault(source, []).append((letter, target))
    return {state: tuple(edges) for state, edges in table.items()}


def accepts(text: str, letters: str = VALID) -> bool:
    """True where the automaton with these letters reads `text` from `B` to `E`."""
    table = steps(letters)
    state = START
    if len(text) < 2 or text[0] != "B" or text[-1] != "E":
        return False
    for letter in text[1:-1]:
        following = dict(table.get(state, ()))
        if letter not in following:
            return False
        state = following[letter]
    return state == END


@cache
def walks(state: int, moves: int) -> int:
    """The number of walks from `state` to the end with exactly this many moves."""
    if moves == 0:
        return int(state == END)
    return sum(walks(target, moves - 1) for source, target in EDGES if source == state)


def count(length: int) -> int:
    """The number of strings of this length, `B` and `E` included; the same for every family."""
    return walks(START, length - 2) if length >= 2 else 0


def nth_string(length: int, index: int, letters: str = VALID) -> str:
    """String number `index` of the count(length) strings of this length, in the order of the edges."""
    table = steps(letters)
    state, text = START, ["B"]
    for moves in range(length - 3, -1, -1):
        first, second = table[state]
        through_first = walks(first[1], moves)
        if index < through_first:
            letter, state = first
        else:
            index -= through_first
            letter, state = second
        text.append(letter)
    return "".join([*text, "E"])


def sampler(letters: str, shortest: int, generator: random.Random) -> Callable[[], str]:
    """Draws strings as a random walk does that is repeated until its string has at least `shortest` letters.

    First the length n is drawn with the weight count(n) * 2**-n, then one of its strings, all equally likely.
    The tail above `shortest` + 100 has a weight below 1e-13 and is left out.
    """
    lengths = range(shortest, shortest + 100)
    weights = list(accumulate(count(length) * 0.5 ** (length - shortest) for length in lengths))

    def draw() -> str:
        length = generator.choices(lengths, cum_weights=weights)[0]
        return nth_string(length, generator.randrange(count(length)), letters)

    return draw


def valid_strings(generator: random.Random) -> list[str]:
    """12 500 different valid strings: all of length 11..20, and longer ones drawn by random walks."""
    short = (nth_string(length, i) for length in range(SHORTEST, COMPLETE_UP_TO + 1) for i in range(count(length)))
    strings = dict.fromkeys(short)  # a dictionary keeps the order
    draw = sampler(VALID, COMPLETE_UP_TO + 1, generator)
    while len(strings) < VALID_COUNT:
        strings[draw()] = None
    return list(strings)


def invalid_strings(family: InvalidFamily, generator: random.Random) -> list[str]:
    """As many different strings as the family has, drawn by random walks; a valid one would be left out.

    Two families may share a string, as in the data set of the thesis (6 and 7 have `B M O...O Q R E` in common).
    """
    strings: dict[str, None] = {}
    draw = sampler(family.letters, SHORTEST, generator)
    while len(strings) < family.count:
        text = draw()
        if text not in strings and not accepts(text):
            strings[text] = None
    return list(strings)


def split(seed: int = 0) -> tuple[list[Sample], list[Sample]]:
    """The 25 000 strings in random order, as 18 750 for training and 6 250 for the test; the same for the same seed."""
    generator = random.Random(seed)
    samples = [Sample(text, 0) for text in valid_strings(generator)]
    for number, family in enumerate(INVALID, start=1):
        samples += [Sample(text, number) for text in invalid_strings(family, generator)]
    generator.shuffle(samples)
    return samples[:TRAIN_COUNT], samples[TRAIN_COUNT:]


def unseen(number: int, *known: list[Sample], seed: int = 1) -> list[Sample]:
    """This many different strings that are in none of the `known` lists, drawn like those of `split`."""
    texts = {sample.text for samples in known for sample in samples}
    fresh = {sample.text: sample for samples in split(seed) for sample in samples if sample.text not in texts}
    return list(fresh.values())[:number]
