"""Runs a model position by position: each layer that looks back takes what it has to remember, and gives it anew.

A model is surveyed once on whole sequences, which finds the layers that carry a state and refuses those that look
ahead. `StepModel` then runs the same model on the next few positions: its layers read their states from a holder
beside the model and write the new ones there, so that it can be traced.

What else in a model may mix positions (a pooling, a convolution, an embedding of the position's number) is not known
here: whoever uses a `StepModel` compares it with the whole model; `first_difference` finds the place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from compressor.errors import CompressorError, ExportError
from compressor.nn.attention.aaren import AarenAttention
from compressor.nn.attention.causal_masks import is_causal_mask
from compressor.nn.attention.compact import CompactMultiheadAttention
from compressor.nn.attention.learned_query import LearnedQuery
from compressor.nn.recurrent.factored import LowRankRecurrent, naive_step
from compressor.nn.recurrent.uneven import PartWeights, part_weights

Inputs = tuple[Tensor, ...]
Example = Callable[[int, int], Inputs]
"""(batch, length) -> the inputs of the whole model."""

_RECURRENT = (nn.RNN, nn.GRU, nn.LSTM, LowRankRecurrent)
_CELLS = (nn.RNNCell, nn.GRUCell, nn.LSTMCell)
_CACHED = (nn.MultiheadAttention, CompactMultiheadAttention)
_ATTENTION = (*_CACHED, AarenAttention)
_STATEFUL: tuple[type[nn.Module], ...] = (*_RECURRENT, *_CELLS, *_ATTENTION, LearnedQuery)
"""Layers of other classes, such as `UnevenRecurrent` and `GraphRecurrent`, consist of these."""

_BATCH = 2
"""Samples in a survey: states that differ between them are not constant."""
_LEAVE_OUT = "or leave `stream` out"


@dataclass(frozen=True)
class StateSpec:
    """One state of a model."""

    name: str
    """`encoder.rnn.h`."""
    initial: Tensor
    """Its value before the first position, for one sample: (1, ...)."""
    growing_axis: int | None = None
    """The axis that has no entries at first and one more with every position."""


@dataclass(frozen=True)
class _Slot:
    """The states of one place in `forward` where a layer is called: the same layer twice is two slots."""

    specs: tuple[StateSpec, ...]


@dataclass(frozen=True)
class _Carrier:
    """A layer that carries a state."""

    slots: tuple[_Slot, ...]
    per_position: bool
    """Called once a position in each slot, as a cell in a loop is, and not once a sequence."""


@dataclass(frozen=True)
class Survey:
    """What of a model carries a state, by the names of the modules, in the order in which they are first called."""

    carriers: dict[str, _Carrier]

    @property
    def states(self) -> tuple[StateSpec, ...]:
        """All states, in order."""
        return tuple(spec for carrier in self.carriers.values() for slot in carrier.slots for spec in slot.specs)


class _Interceptor(Protocol):
    """Is called in place of a stateful layer's `forward`."""

    def __call__(self, name: str, module: nn.Module, original: Callable[..., Any], call: _Arguments) -> Any:
        """What the layer's `forward` is to give."""


@dataclass(frozen=True)
class _Arguments:
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    def get(self, place: int, name: str, default: Any = None) -> Any:
        return self.args[place] if place < len(self.args) else self.kwargs.get(name, default)


@contextmanager
def _intercepted(model: nn.Module, interceptor: _Interceptor) -> Iterator[None]:
    """Within the block, `interceptor` runs the stateful layers of `model`; all other layers work as always.

    `forward` is replaced on the classes, so that a subclass which calls `super().forward` is covered too.
    """
    # torch.export hands out a layer that has several names as several objects with the same attributes
    names: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, _STATEFUL):
            names.setdefault(id(vars(module)), name)

    def dispatcher(original: Any) -> Any:
        def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if id(vars(self)) not in names:
                return original(self, *args, **kwargs)
            return interceptor(names[id(vars(self))], self, original, _Arguments(args, kwargs))

        return forward

    classes: tuple[Any, ...] = _STATEFUL
    originals = [cls.forward for cls in classes]
    for cls, original in zip(classes, originals, strict=True):
        cls.forward = dispatcher(original)
    try:
        yield
    finally:
        for cls, original in zip(classes, originals, strict=True):
            cls.forward = original


# --- survey ---


def survey(model: nn.Module, example: Example, lengths: tuple[int, int]) -> Survey:
    """Find the layers that carry a state.

    Args:
        model: In evaluation mode.
        example: Gives inputs; of those without an axis of time it has to give other values each time.
        lengths: Two lengths, different where the model takes several.

    Raises:
        ExportError: A layer looks ahead, or starts from a state that depends on the inputs.
    """
    _refuse_backward_directions(model)
    watches = [_watch(model, example(_BATCH, length)) for length in lengths]
    carriers = {}
    for name in watches[0].calls:
        calls = [watch.calls.get(name, []) for watch in watches]
        carrier = _carrier(name, model.get_submodule(name), calls, lengths)
        if carrier is not None:
            carriers[name] = carrier
    return Survey(carriers)


def _refuse_backward_directions(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if getattr(module, "bidirectional", False) is True:
            raise ExportError(
                f"`{name or '(model)'}` is bidirectional: its backward direction starts at the end of the sequence, "
                "so there is no step for one position",
                hint=f"train the model with bidirectional=False, {_LEAVE_OUT}",
            )


@dataclass
class _Call:
    """One call of a stateful layer in a survey."""

    arguments: _Arguments
    result: Any


@dataclass
class _Watch:
    """Runs every layer as always and keeps its calls."""

    calls: dict[str, list[_Call]] = field(default_factory=dict)

    def __call__(self, name: str, module: nn.Module, original: Callable[..., Any], call: _Arguments) -> Any:
        result = original(module, *call.args, **call.kwargs)
        self.calls.setdefault(name, []).append(_Call(call, result))
        return result


def _watch(model: nn.Module, inputs: Inputs) -> _Watch:
    watch = _Watch()
    with torch.no_grad(), _intercepted(model, watch):
        model(*inputs)
    return watch


def _carrier(name: str, module: nn.Module, calls: Sequence[list[_Call]], lengths: tuple[int, int]) -> _Carrier | None:
    if isinstance(module, _ATTENTION) and all(_is_fixed_cross(module, call) for few in calls for call in few):
        return None
    counts = [len(few) for few in calls]
    per_position = isinstance(module, _CELLS) or counts[0] != counts[1]
    slots = counts[0] // lengths[0] if per_position else counts[0]
    expected = [slots * length if per_position else slots for length in lengths]
    if counts != expected or not slots:
        raise ExportError(
            f"`{name}` is called {counts[0]} times at length {lengths[0]} and {counts[1]} times at length {lengths[1]}",
            hint=f"call it once for the sequence or once for each position, {_LEAVE_OUT}",
        )
    found = []
    for slot in range(slots):
        base = name if slots == 1 else f"{name}.call.{slot}" if name else f"call.{slot}"
        found.append(_Slot(tuple(_specs(base, name, module, [few[slot] for few in calls]))))
    if isinstance(module, _ATTENTION):  # of a `LearnedQuery` only the parity check can see what it is shown
        for call in (call for few in calls for call in few):
            _refuse_looking_ahead(name, module, call)
    return _Carrier(tuple(found), per_position)


def _specs(base: str, name: str, module: nn.Module, calls: Sequence[_Call]) -> Iterator[StateSpec]:
    """The states of one slot, with their values before the first position."""
    prefix = f"{base}." if base else ""
    if isinstance(module, (AarenAttention, LearnedQuery)):
        for kind, state in zip("acm", module.initial_state(1), strict=True):
            yield StateSpec(prefix + kind, state)
        return
    if isinstance(module, _CACHED):
        key, value = _widths(module)
        weight = next(module.parameters())
        for kind, width in (("k", key), ("v", value)):
            yield StateSpec(prefix + kind, weight.new_zeros(1, module.num_heads, 0, width), growing_axis=2)
        return
    given = [call.arguments.get(1, "hx") for call in calls]
    pair = _has_cell_state(module)
    layers = module.num_layers if isinstance(module, _RECURRENT) else 1
    for layer in range(layers):
        for index, kind in enumerate("hc" if pair else "h"):
            suffix = f"{kind}.{layer}" if layers > 1 else kind
            rows = [_given_rows(hx, index if pair else None, layer) for hx in given]
            yield StateSpec(prefix + suffix, _constant(name, module, _width(module, kind), rows, calls))


def _has_cell_state(module: nn.Module) -> bool:
    """Whether a recurrent layer or cell carries c beside h."""
    return isinstance(module, nn.LSTMCell) or getattr(module, "mode", None) == "LSTM"


def _given_rows(hx: Any, index: int | None, layer: int) -> Tensor | None:
    """The initial state (B, H) that a layer was given for one of its layers."""
    if hx is None:
        return None
    state: Tensor = hx if index is None else hx[index]
    return state[layer] if state.dim() == 3 else state


def _width(module: nn.Module, kind: str) -> int:
    """The size of a state h or c of a recurrent layer or cell."""
    projected = getattr(module, "proj_size", 0) if kind == "h" else 0
    return cast("int", projected or module.hidden_size)


def _constant(
    name: str, module: nn.Module, width: int, rows: Sequence[Tensor | None], calls: Sequence[_Call]
) -> Tensor:
    """The one value (1, H) that every sample started from; zeros where nothing was given."""
    known = [row for row in rows if row is not None]
    if not known:
        return next(module.parameters()).new_zeros(1, width)
    first = known[0][:1]
    if len(known) != len(calls) or any(not torch.equal(row, first.expand_as(row)) for row in known):
        raise ExportError(
            f"the initial state of `{name}` depends on the model's inputs, so there is no value to start a stream from",
            hint="a model that takes and gives its states streams with its own file, called with a few positions at a "
            f"time: leave `stream` out; otherwise start `{name}` from zeros or from a parameter",
        )
    return first.clone()


# --- attention ---


def _batch_first(module: nn.Module, tensor: Tensor) -> Tensor:
    """(B, T, E), whatever the layer's layout."""
    return tensor if module.batch_first else tensor.transpose(0, 1)


def _is_fixed_cross(module: nn.Module, call: _Call) -> bool:
    """Whether the keys are those of something else than the sequence: of another length than the queries."""
    query, key = (_batch_first(module, call.arguments.get(place, word)) for place, word in enumerate(("query", "key")))
    return query.shape[1] != key.shape[1]


def _widths(module: nn.Module) -> tuple[int, int]:
    """Features of a key and of a value in one head."""
    if isinstance(module, CompactMultiheadAttention):
        return module.head_dim, module.value_head_dim
    assert isinstance(module, nn.MultiheadAttention)
    return module.head_dim, module.head_dim


def _refuse_looking_ahead(name: str, module: nn.Module, call: _Call) -> None:
    padding = call.arguments.get(3, "key_padding_mask")
    if padding is not None and bool((padding if padding.dtype == torch.bool else padding != 0).any()):
        raise ExportError(
            f"`{name}` is given a key_padding_mask that hides positions of a full sequence",
            hint=f"a stream has no padding: derive the mask from an input of lengths (`len` in its name), {_LEAVE_OUT}",
        )
    if isinstance(module, AarenAttention):
        return
    if module.bias_k is not None or module.add_zero_attn:
        raise ExportError(
            f"`{name}` has add_bias_kv or add_zero_attn, for which there is no step",
            hint=f"train without, {_LEAVE_OUT}",
        )
    mask = call.arguments.get(5, "attn_mask")
    fault = "it has no mask, so a position sees later ones" if mask is None else ""
    if mask is not None and not is_causal_mask(mask):
        fault = "its mask is not just causal: it shows later positions, hides earlier ones or adds numbers"
    if fault:
        raise ExportError(
            f"`{name}` has no step for one position: {fault}",
            hint=f"train it with a causal mask (True or -inf above the diagonal), {_LEAVE_OUT}",
        )


def _project(module: nn.Module, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values (B, h, T, d) of (B, T, E)."""
    if isinstance(module, CompactMultiheadAttention):
        parts = [module.q_proj(query), module.k_proj(key), module.v_proj(value)]
    else:
        assert isinstance(module, nn.MultiheadAttention)
        bias = module.in_proj_bias
        if module._qkv_same_embed_dim and query is key and key is value:
            parts = list(_linear(query, module.in_proj_weight, bias).chunk(3, -1))
        else:
            separate = [module.q_proj_weight, module.k_proj_weight, module.v_proj_weight]
            weights = module.in_proj_weight.chunk(3) if module._qkv_same_embed_dim else separate
            biases = [None] * 3 if bias is None else bias.chunk(3)
            inputs = (query, key, value)
            parts = [_linear(x, w, b) for x, w, b in zip(inputs, weights, biases, strict=True)]
    q, k, v = (part.unflatten(-1, (module.num_heads, -1)).transpose(1, 2) for part in parts)
    return q, k, v


def _attend(
    module: nn.MultiheadAttention | CompactMultiheadAttention, call: _Arguments, states: list[Tensor]
) -> tuple[Any, list[Tensor]]:
    """Attention of the next positions to themselves and all before: its result, and the longer keys and values."""
    given = [call.get(place, word) for place, word in enumerate(("query", "key", "value"))]
    query, key, value = (_batch_first(module, part) for part in given)
    if given[0] is given[1] and given[1] is given[2]:
        query = key = value = _batch_first(module, given[0])
    q, k, v = _project(module, query, key, value)
    scale = module.scale if isinstance(module, CompactMultiheadAttention) else q.shape[-1] ** -0.5
    new = [torch.cat([old, more], 2) for old, more in zip(states, (k, v), strict=True)]  # (B, h, P + n, d)
    keys, values = new
    q = q * scale
    count = q.shape[2]
    if count == 1:
        scores = q @ keys.transpose(-2, -1)  # (B, h, 1, P + 1)
    else:
        ahead = torch.full((count, count), -1e9, dtype=q.dtype, device=q.device).triu(1)
        old_scores, own_scores = q @ states[0].transpose(-2, -1), q @ k.transpose(-2, -1) + ahead
        scores = torch.cat([old_scores, own_scores], -1)  # (B, h, n, P + n)
    context = scores.softmax(-1) @ values  # (B, h, n, d_v)
    joined = context.transpose(1, 2).flatten(2)  # (B, n, h * d_v)
    output = _linear(joined, module.out_proj.weight, module.out_proj.bias)
    return (_batch_first(module, output), None), new


# --- recurrent layers ---


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Multiply x (..., I) by a weight (O, I), written so that it becomes a MatMul, which quantizers know best."""
    product = x @ weight.t()
    return product if bias is None else product + bias


def cell_step(mode: str, x: Tensor, state: Sequence[Tensor], weights: PartWeights) -> list[Tensor]:
    r"""One position of one layer, of plain operations.

    Args:
        mode: `RNN_TANH`, `RNN_RELU`, `GRU` or `LSTM`.
        x: (B, I).
        state: h (B, H), and c (B, H) of an LSTM; h (B, P) of one with `proj_size` P.
        weights: Of the layer.

    Returns:
        The new h, and c of an LSTM.
    """
    biases: tuple[Tensor | None, ...] = weights.biases or (None, None)
    h = state[0]
    own, back = weights.weight_ih, weights.weight_hh
    if mode == "GRU":
        given, kept = _linear(x, own, biases[0]), _linear(h, back, biases[1])  # (B, 3 H)
        r_given, z_given, n_given = given.chunk(3, -1)
        r_kept, z_kept, n_kept = kept.chunk(3, -1)
        update = torch.sigmoid(z_given + z_kept)
        new = torch.tanh(n_given + torch.sigmoid(r_given + r_kept) * n_kept)
        return [new + update * (h - new)]
    bias = None if biases[0] is None or biases[1] is None else biases[0] + biases[1]
    total = x @ own.t() + _linear(h, back, bias)  # (B, G * H)
    if mode == "LSTM":
        i, f, g, o = total.chunk(4, -1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return [h if weights.projection is None else h @ weights.projection.t(), c]
    return [torch.relu(total) if mode == "RNN_RELU" else torch.tanh(total)]


def _run_plain(
    module: nn.RNNBase | LowRankRecurrent, x: Tensor, axis: int, states: list[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """A layer over the few positions of x along `axis`: its output, laid out as x, and the new states."""
    positions = [x.squeeze(axis)] if x.shape[axis] == 1 else [x.select(axis, t) for t in range(x.shape[axis])]
    kinds = 2 if module.mode == "LSTM" else 1
    new: list[Tensor] = []
    for layer in range(module.num_layers):
        state = states[kinds * layer : kinds * (layer + 1)]
        step = _step_of_layer(module, layer)
        outputs = []
        for position in positions:
            state = step(position, state)
            outputs.append(state[0])
        positions = outputs
        new += state
    output = positions[0].unsqueeze(axis) if len(positions) == 1 else torch.stack(positions, axis)
    return output, new


def _step_of_layer(module: nn.RNNBase | LowRankRecurrent, layer: int) -> Callable[[Tensor, list[Tensor]], list[Tensor]]:
    """One position of one layer: x (B, I) and its states to its new states."""
    if isinstance(module, LowRankRecurrent):
        return partial(naive_step, module.mode, module.part(layer, 0))
    weights = part_weights(module, layer, 0)
    return lambda x, states: cell_step(module.mode, x, states, weights)


def _recur(
    module: nn.Module, original: Callable[..., Any], call: _Arguments, states: list[Tensor], plain: bool
) -> tuple[Any, list[Tensor]]:
    """A recurrent layer over the next positions: its result and the new states, (B, H) each."""
    assert isinstance(module, (nn.RNNBase, LowRankRecurrent))
    x = call.get(0, "input")
    kinds = 2 if module.mode == "LSTM" else 1
    padded = getattr(x, "padded", None) if isinstance(x, PackedSequence) and type(x) is not PackedSequence else None
    if plain and type(x) is not PackedSequence:
        axis = 1 if module.batch_first and padded is None else 0
        sequence = x if padded is None else padded  # what stands for a packed sequence in a trace has time first
        if sequence.dim() != 3:
            raise ExportError(
                "a recurrent layer is given a sequence without a batch axis", hint=f"give it one, {_LEAVE_OUT}"
            )
        output, new = _run_plain(module, sequence, axis, states)
        output = output if padded is None else x.with_steps(output)
        stacked = [torch.stack(new[kind::kinds]) for kind in range(kinds)]  # (L, B, H)
        return (output, tuple(stacked) if kinds == 2 else stacked[0]), new
    stacked = [torch.stack(states[kind::kinds]) for kind in range(kinds)]
    output, last = original(module, x, tuple(stacked) if kinds == 2 else stacked[0])
    parts = list(last) if kinds == 2 else [last]
    new = [part[layer] for layer in range(module.num_layers) for part in parts]
    return (output, last), new


def _recur_cell(module: nn.RNNCellBase, call: _Arguments, states: Sequence[Tensor]) -> tuple[Any, list[Tensor]]:
    """A cell at one position."""
    biases = (module.bias_ih, module.bias_hh) if module.bias else ()
    weights = PartWeights(module.weight_ih, module.weight_hh, biases)
    if isinstance(module, nn.RNNCell):
        mode = "RNN_RELU" if module.nonlinearity == "relu" else "RNN_TANH"
    else:
        mode = "GRU" if isinstance(module, nn.GRUCell) else "LSTM"
    new = cell_step(mode, call.get(0, "input"), states, weights)
    return (tuple(new) if len(new) == 2 else new[0]), new


# --- steps ---


@dataclass
class _Asked:
    """What was seen of one call of attention around a `LearnedQuery`, in its own order of axes."""

    slot: _Slot | None = None
    states: list[Tensor] = field(default_factory=list)
    x: Tensor | None = None
    values: Tensor | None = None


@dataclass
class _Holder:
    """The states during one run of the model, beside it."""

    survey: Survey
    states: dict[str, Tensor]
    positions: int
    plain: bool
    new: dict[str, Tensor] = field(default_factory=dict)
    asked: dict[str, _Asked] = field(default_factory=dict)
    """By the name of a `LearnedQuery`, what of its attention has been seen since it was called."""
    _counts: dict[str, int] = field(default_factory=dict)

    def __call__(self, name: str, module: nn.Module, original: Callable[..., Any], call: _Arguments) -> Any:
        carrier = self.survey.carriers.get(name)
        if carrier is None:
            return original(module, *call.args, **call.kwargs)
        index = self._counts.get(name, 0)
        self._counts[name] = index + 1
        count = len(carrier.slots)
        slot = carrier.slots[index % count]
        if carrier.per_position and index >= count:
            states = self._handed_on(module, call)
        else:
            states = [self.states[spec.name] for spec in slot.specs]
        if isinstance(module, LearnedQuery):
            return self._ask(name, module, original, call, slot, states)
        result, new = self._advance(module, original, call, states)
        if not carrier.per_position or index >= count * (self.positions - 1):
            self.new |= {spec.name: value for spec, value in zip(slot.specs, new, strict=True)}
        return result

    def _ask(
        self, name: str, module: LearnedQuery, original: Any, call: _Arguments, slot: _Slot, states: list[Tensor]
    ) -> Tensor:
        """Remember what a `LearnedQuery` was asked: the sums are carried on where its output projection is called."""
        result: Tensor = original(module, *call.args, **call.kwargs)
        asked = self.asked.setdefault(name, _Asked())
        asked.slot, asked.states = slot, states
        if "key" not in module.paths():
            asked.x = call.get(0, "x")
            asked.values = module.own_values(asked.x)
        return result

    def answer(self, name: str, model: nn.Module, context: Tensor) -> Tensor:
        """What an output projection is to be given in the place of what the author's code made of the newest positions.

        Raises:
            ExportError: Queries, keys or values have not been made by then.
        """
        module, asked = model.get_submodule(name), self.asked.pop(name, _Asked())
        assert isinstance(module, LearnedQuery)
        if asked.slot is None or asked.x is None or asked.values is None:
            raise ExportError(
                f"the attention around `{name}` calls its output projection before queries, keys and values",
                hint=f"call each of them once for a sequence, {_LEAVE_OUT}",
            )
        key = module.paths().get("key")
        x, values = (_batch_first(module, part) for part in (asked.x, asked.values))
        a, c, m = asked.states
        answer, new = module.step(x, values, None if key is None else model.get_submodule(key), (a, c, m))
        self.new |= {spec.name: value for spec, value in zip(asked.slot.specs, new, strict=True)}
        return _batch_first(module, answer).reshape(context.shape)

    def _handed_on(self, module: nn.Module, call: _Arguments) -> list[Tensor]:
        """What the model itself gives a cell at a later position of the chunk."""
        hx = call.get(1, "hx")
        pair = _has_cell_state(module)
        kinds = list(hx) if pair else [hx]
        if isinstance(module, _CELLS):
            return kinds
        return [kind[layer] for layer in range(kinds[0].shape[0]) for kind in kinds]

    def _advance(
        self, module: nn.Module, original: Callable[..., Any], call: _Arguments, states: list[Tensor]
    ) -> tuple[Any, list[Tensor]]:
        if isinstance(module, AarenAttention):
            x = _batch_first(module, call.get(1, "key"))  # (B, n, E)
            output, new = module.step(x, (states[0], states[1], states[2]))
            return (_batch_first(module, output), None), list(new)
        if isinstance(module, _CACHED):
            return _attend(module, call, states)
        if isinstance(module, _CELLS):
            return _recur_cell(module, call, states)
        return _recur(module, original, call, states, self.plain)


@contextmanager
def _answered(model: nn.Module, holder: _Holder) -> Iterator[None]:
    """Within the block, output projections behind a `LearnedQuery` are given what `holder` answers."""
    changed: list[nn.Module] = []

    def change(module: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        module.forward = forward
        changed.append(module)

    def keys(asked: str, original: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        holder.asked.setdefault(asked, _Asked()).x = x
        return original(x)

    def values(asked: str, original: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        result = original(x)
        holder.asked.setdefault(asked, _Asked()).values = result
        return result

    def output(asked: str, original: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        return original(holder.answer(asked, model, x))

    roles = {"key": keys, "value": values, "output": output}
    try:
        for name in holder.survey.carriers:
            module = model.get_submodule(name)
            if isinstance(module, LearnedQuery):
                for role, path in module.paths().items():
                    part = model.get_submodule(path)
                    change(part, partial(roles[role], name, part.forward))
        yield
    finally:
        for module in reversed(changed):
            del module.forward


class StepModel(nn.Module):
    """A model that takes its inputs at the next `chunk` positions and all its states, and gives outputs and states.

    `forward(*inputs, *states)` gives a flat tuple: the model's outputs, then the new states in the order of
    `survey.states`.
    """

    def __init__(self, model: nn.Module, found: Survey, *, chunk: int = 1, plain: bool = True) -> None:
        """Wrap `model`.

        Args:
            model: In evaluation mode.
            found: Its survey.
            chunk: Positions in a step, >= 1.
            plain: Recurrent layers are computed by plain operations, position by position; else by the layer itself.
        """
        super().__init__()
        self.model = model
        self._survey = found
        self._chunk = chunk
        self._plain = plain

    def forward(self, *parts: Tensor) -> tuple[Tensor, ...]:
        """Run one step."""
        specs = self._survey.states
        split = len(parts) - len(specs)
        given = {spec.name: part for spec, part in zip(specs, parts[split:], strict=True)}
        holder = _Holder(self._survey, given, self._chunk, self._plain)
        with _intercepted(self.model, holder), _answered(self.model, holder):
            outputs = self.model(*self.complete(parts[:split]))
        missing = [spec.name for spec in specs if spec.name not in holder.new]
        if missing:
            raise ExportError(
                f"the model does not reach `{missing[0]}` in a step of {self._chunk} positions, but does in a sequence",
                hint=f"let `forward` take the same way at every length, {_LEAVE_OUT}",
            )
        flat = (outputs,) if isinstance(outputs, Tensor) else tuple(outputs)
        if not all(isinstance(output, Tensor) for output in flat):
            raise ExportError(
                "in a step the model gives something that is no tensor: weights of an attention are not given there",
                hint=f"do not return attention weights, {_LEAVE_OUT}",
            )
        return (*flat, *(holder.new[spec.name] for spec in specs))

    def complete(self, inputs: Inputs) -> Inputs:
        """The inputs of the model, from those of a step."""
        return inputs

    def initial_states(self, batch: int) -> Inputs:
        """The states before the first position."""
        return tuple(spec.initial.expand(batch, *spec.initial.shape[1:]).clone() for spec in self._survey.states)


# --- what disagrees ---


@dataclass(frozen=True)
class Difference:
    """Where step by step something else happens than on the whole sequence."""

    name: str
    """Of the module."""
    position: int
    given: bool
    """What the module is given is different already."""


@dataclass(frozen=True)
class _Seen:
    """What a module was given and gave in one call."""

    name: str
    given: Tensor | None
    gave: Tensor


@contextmanager
def _recording(model: nn.Module) -> Iterator[list[_Seen]]:
    seen: list[_Seen] = []

    def hook(name: str) -> Any:
        def keep(_: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, (tuple, list)) and output else output
            if isinstance(first, Tensor):
                given = inputs[0] if inputs and isinstance(inputs[0], Tensor) else None
                seen.append(_Seen(name, given, first))

        return keep

    handles = [module.register_forward_hook(hook(name)) for name, module in model.named_modules() if name]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def first_difference(
    model: nn.Module, step: Callable[[int], Any], whole: Callable[[], Any], length: int, *, tolerance: float
) -> Difference | None:
    """The first module, in the order in which they end, that goes another way step by step than on the whole sequence.

    Args:
        model: The model inside both.
        step: Runs position t, the positions in order.
        whole: Runs the whole model.
        length: T, the number of positions.
        tolerance: Largest absolute and relative difference that is none.

    Returns:
        None where every module that can be compared agrees.
    """
    with _recording(model) as seen:
        whole()
        expected = list(seen)
    steps = []
    for position in range(length):
        with _recording(model) as seen:
            step(position)
            steps.append(_by_name(seen))
    for name, calls in _by_name(expected).items():
        if any(len(few.get(name, [])) != len(calls) for few in steps):
            continue  # a cell in a loop, or a layer that is computed in another way
        for position, few in enumerate(steps):
            for wanted, found in zip(calls, few[name], strict=True):
                if not _agree(wanted.gave, found.gave, position, length, tolerance):
                    given = wanted.given is not None and found.given is not None
                    differs = given and not _agree(wanted.given, found.given, position, length, tolerance)
                    return Difference(name, position, differs)
    return None


def _by_name(seen: Sequence[_Seen]) -> dict[str, list[_Seen]]:
    found: dict[str, list[_Seen]] = {}
    for item in seen:
        found.setdefault(item.name, []).append(item)
    return found


def _agree(whole: Tensor | None, step: Tensor | None, position: int, length: int, tolerance: float) -> bool:
    """Whether the output (..., 1, ...) of one position is that of a whole output (..., T, ...), where they compare."""
    assert whole is not None
    assert step is not None
    if whole.dim() != step.dim():
        return True
    axes = [
        axis
        for axis in range(whole.dim())
        if whole.shape[axis] == length
        and step.shape[axis] == 1
        and whole.shape[:axis] == step.shape[:axis]
        and whole.shape[axis + 1 :] == step.shape[axis + 1 :]
    ]
    if not axes:
        return True
    expected = whole.narrow(axes[0], position, 1)
    if not expected.is_floating_point():
        return torch.equal(step, expected)
    return torch.allclose(step, expected, atol=tolerance, rtol=tolerance, equal_nan=True)


def explained(error: Exception) -> ExportError:
    """What the user is told of a model that fails on a step."""
    if isinstance(error, CompressorError):
        return ExportError(error.message, hint=error.hint)
    first = (str(error).splitlines() or [""])[0]
    return ExportError(
        f"the model does not run on a step: {type(error).__name__}: {first}",
        hint=f"`forward` must take any number of positions, also one, {_LEAVE_OUT}",
    )
