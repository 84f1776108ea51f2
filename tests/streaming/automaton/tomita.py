"""The seven regular languages of Tomita (1982) over the symbols 0 and 1, written as predicates and nothing else."""

from __future__ import annotations

import re

import torch

LANGUAGES = {
    1: lambda text: "0" not in text,
    2: lambda text: re.fullmatch("(10)*", text) is not None,
    3: lambda text: re.search("(?<!1)1(11)*0(00)*(?!0)", text) is None,
    4: lambda text: "000" not in text,
    5: lambda text: text.count("0") % 2 == 0 and text.count("1") % 2 == 0,
    6: lambda text: (text.count("1") - text.count("0")) % 3 == 0,
    7: lambda text: re.fullmatch("0*1*0*1*", text) is not None,
}


def label(number, strings):
    """Whether each prefix is in the language (B, T)."""
    texts = ["".join(map(str, row)) for row in strings.tolist()]
    return torch.tensor([[LANGUAGES[number](text[: end + 1]) for end in range(len(text))] for text in texts]).long()


def random_strings(count, length, generator, number=None):
    """Symbols (B, T); half of the strings stay in the language as long as they can, if it is given."""
    strings = torch.randint(2, (count, length), generator=generator)
    if number is None:
        return strings
    accepts = LANGUAGES[number]
    for row in strings[::2]:
        text = ""
        for place in range(length):
            options = [symbol for symbol in "01" if _may_go_on(accepts, text + symbol)]
            pick = int(torch.randint(max(len(options), 1), (), generator=generator))
            text += options[pick] if options else "0"
            row[place] = int(text[-1])
    return strings


def _may_go_on(accepts, text):
    """Whether the text is in the language, or is so after at most three symbols more."""
    return any(accepts(text + more) for more in ("", "0", "1", "00", "01", "10", "11"))
