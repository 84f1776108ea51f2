"""Text from models, recipes and reports, made safe to print: control characters are shown, not obeyed.

A name can hold any character, also those that a terminal obeys (OSC 52 fills the clipboard), that reorder what is read
(bidirectional overrides), or that begin a new line and so imitate another message.
"""

from __future__ import annotations

import re
from typing import Final

_OBEYED: Final = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 and C1 but for tab and line feed
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction marks, embeddings, overrides and isolates
    "\u2028\u2029"  # separators of lines and paragraphs
    "\ud800-\udfff"  # halves of surrogate pairs, which cannot be encoded
    "]"
)


def printable(text: str) -> str:
    r"""`text` with an escape such as `\x1b` for each character that is obeyed; tabs and line feeds stay."""
    return _OBEYED.sub(_escape, text.replace("\r\n", "\n"))


def printable_json(text: str) -> str:
    r"""JSON of the same value, with an escape such as `\u202e` for each character of a string that is obeyed."""
    return _OBEYED.sub(lambda match: f"\\u{ord(match.group()):04x}", text)


def one_line(text: str) -> str:
    """`printable` on one line: runs of spaces, tabs and line feeds become one space."""
    return " ".join(re.split(r"[ \t\n]+", printable(text))).strip()


def _escape(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
