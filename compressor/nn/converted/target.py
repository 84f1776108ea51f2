"""The targets of a conversion by their words; comes without torch, for options and help."""

from typing import Final, Literal, get_args

Target = Literal["fsmn", "lssl", "para_rnn", "additive", "plstm", "m2rnn"]
"""The word after `to`."""
WORDS: Final[tuple[Target, ...]] = get_args(Target)
