"""What text without quotes means in YAML 1.2, and a writer that quotes what means something else."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

NULL, BOOL, INT, FLOAT = (f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
PLAIN_RULES: Final = tuple(
    (tag, re.compile(rf"(?:{pattern})\Z"), first)
    for tag, pattern, first in (
        (NULL, r"~|null|Null|NULL|", ["~", "n", "N", ""]),
        (BOOL, r"true|True|TRUE|false|False|FALSE", list("tTfF")),
        (INT, r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
        (
            FLOAT,
            r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
            list("-+0123456789."),
        ),
    )
)
"""Tag, pattern of the whole text and its first characters, of the core schema."""


class _Dumper(yaml.SafeDumper):
    """PyYAML's writer, which quotes by the rules of YAML 1.1 alone: it leaves `1e3` bare, a number in 1.2."""


for _tag, _pattern, _first in PLAIN_RULES:
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)


def dump(value: Any, **options: Any) -> str:
    """Plain values as YAML that both versions read alike, keys in their order; options are those of `yaml.dump`."""
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, **{"allow_unicode": True, **options})
    return text
