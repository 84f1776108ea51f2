"""Blind damage to the bytes of any file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random

_NUMBERS = (b"\x00" * 8, b"\xff" * 8, b"\xff\xff\xff\x7f", (1 << 40).to_bytes(8, "little"))
"""What lengths and offsets are like when they go wrong."""


def damaged(content: bytes, draw: random.Random) -> tuple[str, bytes]:
    """How it was damaged, and the bytes."""
    place = draw.randrange(len(content) + 1)
    end = min(len(content), place + draw.choice((1, 4, 16, 300)))
    flipped, number = bytearray(content), draw.choice(_NUMBERS)
    for _ in range(draw.choice((1, 1, 3, 20))):
        flipped[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    ways = {
        "cut off": content[:place],
        "bits flipped": bytes(flipped),
        "a number overwritten": content[:place] + number + content[place + len(number) :],
        "bytes deleted": content[:place] + content[end:],
        "bytes doubled": content[:end] + content[place:],
        "bytes replaced by noise": content[:place] + draw.randbytes(end - place) + content[end:],
        "halves swapped": content[place:] + content[:place],
    }
    return draw.choice(list(ways.items()))
