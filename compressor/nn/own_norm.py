"""Normalisations that a model's own code writes out as a module, after some of their features were removed."""

from __future__ import annotations

import copy
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Unpack
from weakref import WeakKeyDictionary

import torch
from pydantic import model_validator
from torch import Tensor, nn

from compressor.nn.narrowed_norm import NarrowedAxisRecord, NarrowedNorm
from compressor.nn.own_code import is_own
from compressor.nn.record import LayerRecord, copy_parameter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from compressor.nn.factory import FactoryOptions


@dataclass(frozen=True)
class NormForm:
    r"""The function :math:`y = \frac{x - m}{d} (w + o) + b` along an axis, with v the variance (or mean square).

    :math:`d = \sqrt{v + \epsilon}`, or :math:`\sqrt v + \epsilon` if `outside`.
    """

    width: int
    """Features along the axis."""
    axis: int
    """-1, or 1 for channels in front of positions."""
    centred: bool
    """The mean is subtracted; else m = 0 and v is the mean square."""
    correction: int
    """1: the squares are divided by one less than the features."""
    outside: bool
    offset: float
    """Added to the weight: 0 or 1."""
    eps: float
    weight: str | None
    """The module's own name of its weight."""
    bias: str | None

    def fields(self) -> dict[str, Any]:
        """What a record says of the function, whatever its parameters and its width are."""
        names = ("eps", "axis", "centred", "correction", "outside", "offset")
        return {name: getattr(self, name) for name in names}

    def scaled(self, x: Tensor, width: int) -> Tensor:
        """What is left of (x - m) / d along the axis, where `width` features are divided by and the rest is 0."""
        mean = x.sum(self.axis, keepdim=True) / width if self.centred else None
        centred = x if mean is None else x - mean
        power = centred.square().sum(self.axis, keepdim=True)
        if mean is not None:
            power = power + (width - x.size(self.axis)) * mean.square()
        variance = power / (width - self.correction)
        return centred / (variance.sqrt() + self.eps if self.outside else (variance + self.eps).sqrt())


class WideOwnNormRecord(NarrowedAxisRecord):
    """What a `WideOwnNorm` is built from."""

    eps: float
    axis: int
    centred: bool
    correction: int
    outside: bool
    offset: float
    scale: bool
    shift: bool

    @model_validator(mode="after")
    def _consistent(self) -> WideOwnNormRecord:
        if self.axis not in (-1, 1) or self.correction not in (0, 1) or self.offset not in (0.0, 1.0):
            raise ValueError("axis is -1 or 1, correction and offset are 0 or 1")
        if self.width <= self.correction:
            raise ValueError("one feature has no unbiased variance")
        return self


class WideOwnNorm(NarrowedNorm):
    """A normalisation of the model's own code over n features of which n' are there; the others are known to be 0.

    See `NormForm` for the function, and `own_norm` for how it is recognised.
    """

    record_type: ClassVar[type[LayerRecord]] = WideOwnNormRecord

    def __init__(
        self,
        features: int,
        width: int,
        *,
        eps: float,
        axis: int,
        centred: bool,
        correction: int,
        outside: bool,
        offset: float,
        scale: bool,
        shift: bool,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        """Build the layer, with a weight that scales by 1 and a bias of 0.

        Args:
            features: n', the size of the axis.
            width: n, what that size was before anything was removed.
            eps: See `NormForm`, also for the next five.
            axis: -1 or 1.
            centred: The mean is subtracted.
            correction: 0 or 1.
            outside: `eps` is added to the deviation.
            offset: 0 or 1.
            scale: There is a weight (n',).
            shift: There is a bias (n',).
            **factory: See `FactoryOptions`.
        """
        super().__init__()
        self.width, self._features = width, features
        self.form = NormForm(width, axis, centred, correction, outside, offset, eps, None, None)
        weight = nn.Parameter(torch.full((features,), 1.0 - offset, **factory)) if scale else None
        self.bias: nn.Parameter | None
        self.register_parameter("weight", weight)
        self.register_parameter("bias", nn.Parameter(torch.zeros(features, **factory)) if shift else None)

    @classmethod
    def from_module(cls, module: nn.Module) -> WideOwnNorm:
        """The same function, able to lose features; `module` is one that `own_norm` recognises.

        Raises:
            ValueError: It does not.
        """
        form = own_norm(module)
        if form is None:
            raise ValueError(f"a {type(module).__name__} is not a normalisation that is known")
        parameter = next(module.parameters())
        wide = cls(
            form.width,
            form.width,
            **form.fields(),
            scale=form.weight is not None,
            shift=form.bias is not None,
            device=parameter.device,
            dtype=parameter.dtype,
        )
        for new, name in ((wide.weight, form.weight), (wide.bias, form.bias)):
            if new is not None and name is not None:
                copy_parameter(new, module.get_parameter(name).detach().flatten())
                new.requires_grad_(module.get_parameter(name).requires_grad)
        return wide.train(module.training)

    def record(self) -> dict[str, Any]:
        """JSON from which `from_record` builds a layer of this structure."""
        return WideOwnNormRecord(
            features=self.features,
            width=self.width,
            **self.form.fields(),
            scale=self.weight is not None,
            shift=self.bias is not None,
        ).model_dump()

    @property
    def features(self) -> int:
        """Size of the normalised axis of inputs and outputs."""
        given = self.bias if self.weight is None else self.weight
        return self._features if given is None else given.size(0)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise `x` along its axis of n' features; same shape and type."""
        y = self.form.scaled(self.exact(x, self.form.axis), self.width)
        shape = [-1] + [1] * (x.dim() - 2 if self.form.axis == 1 else 0)
        if self.weight is not None:
            y = y * (self.weight + self.form.offset if self.form.offset else self.weight).view(shape)
        if self.bias is not None:
            y = y + self.bias.view(shape)
        return y.to(x.dtype)

    def extra_repr(self) -> str:
        """The structure in one line."""
        return f"{self.features} of {self.width}, {self.form}"


_EPS = (1e-5, 1e-6, 1e-8, 1e-12, 1e-3, 0.0)
_SCALES = (1e-3, 3e-2, 1.0, 40.0)
"""Sizes of the rows that a module is shown: at the smallest one the place and the size of `eps` can be told apart."""
_POSITIONS = 3
"""Beside the features of a row that a module is shown."""
_CLOSE = 1e-5
"""Some modules compute in float32 whatever they are given."""
_KNOWN: WeakKeyDictionary[nn.Module, NormForm | None] = WeakKeyDictionary()


def own_norm(module: nn.Module) -> NormForm | None:
    """Which normalisation a module of the model's own code computes; None for anything else.

    It is told by what it does: in both modes, on rows of sizes from 0.001 to 40 and with random weights, it gives what
    the form gives. Only modules without children and buffers, with one or two parameters of one length, are looked at.
    """
    if module not in _KNOWN:
        _KNOWN[module] = _recognised(module)
    return _KNOWN[module]


def _recognised(module: nn.Module) -> NormForm | None:
    parameters = dict(module.named_parameters(recurse=False))
    sizes = {parameter.numel() for parameter in parameters.values()}
    plain = is_own(module) and not isinstance(module, torch.jit.ScriptModule)
    if not plain or any(True for _ in (*module.children(), *module.buffers(recurse=False))):
        return None
    if len(parameters) not in (1, 2) or len(sizes) != 1 or min(sizes) < 2:
        return None
    if any(max(parameter.shape, default=0) not in sizes for parameter in parameters.values()):
        return None  # one long axis each
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        return next(_forms(copy.deepcopy(module).cpu().double(), sizes.pop(), list(parameters)), None)


def _forms(module: nn.Module, width: int, names: list[str]) -> Iterator[NormForm]:
    """All forms that a module, which is changed, agrees with."""
    for name in names:
        parameter = module.get_parameter(name)
        parameter.copy_(torch.rand_like(parameter) + 0.5)
    eps = [value for value in vars(module).values() if isinstance(value, float) and 0 <= value < 0.1]
    roles: list[tuple[str | None, str | None]] = [(names[0], None), (None, names[0])]
    if len(names) == 2:
        roles = [(names[0], names[1]), (names[1], names[0])]
    for axis, dims in ((-1, 3), (1, 3), (1, 4)):
        x = _shown(width, axis, dims)
        given = [_given(module.train(mode), x) for mode in (True, False)]
        if any(result is None or result.shape != x.shape for result in given):
            continue
        [training, result] = [part.movedim(axis, -1) for part in given if part is not None]
        if not torch.equal(training, result):
            continue
        for centred, outside, value in itertools.product((True, False), (False, True), dict.fromkeys((*eps, *_EPS))):
            for correction in (0, 1) if centred else (0,):
                for weight, bias in roles:
                    for offset in (0.0, 1.0) if weight is not None else (0.0,):
                        form = NormForm(width, axis, centred, correction, outside, offset, value, weight, bias)
                        if _agrees(module, form, x, result):
                            yield form


def _shown(width: int, axis: int, dims: int) -> Tensor:
    """Rows of all sizes, off their mean: (sizes, 3, width), (sizes, width, 3) or (sizes, width, 3, 1)."""
    x = torch.randn(len(_SCALES), _POSITIONS, width, dtype=torch.float64) + 0.3
    x = x * torch.tensor(_SCALES, dtype=torch.float64).view(-1, 1, 1)
    return x if axis == -1 else x.transpose(1, 2).reshape(len(_SCALES), width, _POSITIONS, *[1] * (dims - 3))


def _given(module: nn.Module, x: Tensor) -> Tensor | None:
    """What it gives for one tensor; None if it wants another one."""
    try:
        result = module(x.clone())
    except Exception:  # the model's own code: whatever it raises, it is not a normalisation along this axis
        return None
    return result if isinstance(result, Tensor) and result.dtype == x.dtype else None


def _agrees(module: nn.Module, form: NormForm, x: Tensor, result: Tensor) -> bool:
    expected = form.scaled(x, form.width).movedim(form.axis, -1)
    if form.weight is not None:
        expected = expected * (module.get_parameter(form.weight).flatten() + form.offset)
    if form.bias is not None:
        expected = expected + module.get_parameter(form.bias).flatten()
    worst = (result - expected).abs().amax(-1) / expected.abs().amax(-1)
    return bool((worst < _CLOSE).all())
