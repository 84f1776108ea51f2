"""How a task names the parts of third-party attention. No torch here: `compressor` itself exports this."""

from __future__ import annotations

from dataclasses import dataclass

from compressor.errors import TaskError

LAYERS = ("query", "key", "value", "output")
"""The fields that name `nn.Linear` layers."""
_HINT = 'dotted paths inside the attention module, such as AttentionParts(query="self.query", heads="self.num_heads")'


@dataclass(frozen=True)
class AttentionParts:
    """Where a module of multi-head attention has its four `nn.Linear` layers and its numbers of heads.

    All paths are dotted and start at the module, such as `self.query` for the layer that the module's own code calls
    `self.self.query`. The heads lie one behind the other: with h heads of d features, rows i * d to (i + 1) * d of
    `query`, `key` and `value` belong to head i, and so do these columns of `output`. If `query`, `key` and `value`
    are one path, that layer holds the rows of all queries, then of all keys, then of all values.

    Example:
        BERT as the `transformers` package writes it::

            class Sentences(Task):
                attention = {
                    "encoder.layer.*.attention": AttentionParts(
                        query="self.query",
                        key="self.key",
                        value="self.value",
                        output="output.dense",
                        heads="self.num_attention_heads",
                        widths=("self.all_head_size",),
                    )
                }
    """

    query: str
    """Path of the layer (h * d, E_q) that makes the queries."""
    key: str
    """Path of the layer (h * d, E_k) that makes the keys."""
    value: str
    """Path of the layer (h * d_v, E_v) that makes the values."""
    output: str
    """Path of the layer (E_o, h * d_v) that takes the heads in."""
    heads: str | tuple[str, ...] = ()
    """Path of the attribute that holds the number of heads h, an int; of all of them if there are several."""
    widths: tuple[str, ...] = ()
    """Paths of the attributes that hold heads times width, h * d or h * d_v, such as `self.all_head_size`."""
    head_width: str | None = None
    """Instead of `heads`, if no attribute holds that number: path of the attribute that holds d."""

    def __post_init__(self) -> None:
        """Refuse what cannot be paths.

        Raises:
            TaskError: A path is not text or is empty, or two of the three inputs are one layer, the third another.
        """
        fields: dict[str, tuple[str, ...]] = {name: (getattr(self, name),) for name in LAYERS}
        fields["head_width"] = () if self.head_width is None else (self.head_width,)
        for name in ("heads", "widths"):
            value = getattr(self, name)
            fields[name] = value if isinstance(value, tuple) else (value,)
        for name, paths in fields.items():
            for path in paths:
                if not isinstance(path, str) or not all(
                    part.isidentifier() or part.isdigit() for part in path.split(".")
                ):
                    raise TaskError(f"`{name}` of AttentionParts is {path!r}, which is not a path", hint=_HINT)
        if bool(fields["heads"]) == bool(fields["head_width"]):
            raise TaskError("AttentionParts needs `heads` or `head_width`, and not both", hint=_HINT)
        if len({self.query, self.key, self.value}) == 2 or self.output in (self.query, self.key, self.value):
            raise TaskError(
                "AttentionParts names one layer twice",
                hint="query, key, value and output are four layers, or the first three are one that holds all three",
            )

    @property
    def head_attributes(self) -> tuple[str, ...]:
        """`heads` as a tuple."""
        return (self.heads,) if isinstance(self.heads, str) else self.heads

    @property
    def packed(self) -> bool:
        """One layer makes queries, keys and values."""
        return self.query == self.key
