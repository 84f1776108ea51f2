"""Names of C made of any name."""

from __future__ import annotations

import re

_TAKEN = frozenset(
    [
        *("auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern"),
        *("float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed"),
        *("sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while"),
        *"abcdefghijklmnpqstvw",  # loop variables and pointers of the generated functions, and what they call
        *("ceilf", "cosf", "erff", "expf", "expm1f", "fabsf", "floorf", "fmaxf", "fminf", "log1pf", "logf", "memcpy"),
        *("memset", "powf", "rintf", "sinf", "sqrtf", "tanhf", "main"),
    ]
)


def identifier(text: str) -> str:
    """A name of C made of any name."""
    plain = re.sub(r"[^0-9A-Za-z]+", "_", text).strip("_") or "x"
    taken = plain[0].isdigit() or plain in _TAKEN or re.fullmatch(r"c\d+|k_\w+|initial_\w+", plain)
    return f"m_{plain}" if taken else plain
