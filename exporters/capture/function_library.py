"""PyTorch's library of ONNX functions, kept from export to export.

`torch.onnx.export` reads the library anew every time, which takes longer than all the rest of the export of a small
model. The library depends on the opset alone.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_libraries: dict[int, Any] = {}
"""Opset -> its functions."""


@contextlib.contextmanager
def kept() -> Iterator[None]:
    """Within the block, `torch.onnx.export` reads the library of an opset once a process.

    It has no public argument for this. If a version of PyTorch keeps the library elsewhere, exports are slower and the
    same.
    """
    registry = _registry()
    reader = vars(registry).get("from_torchlib")
    if not isinstance(reader, classmethod):
        yield
        return
    read = registry.from_torchlib

    def from_torchlib(opset_version: int) -> Any:
        if opset_version not in _libraries:
            with _unparsed(), _read_later():
                _libraries[opset_version] = read(opset_version=opset_version)
        return _libraries[opset_version]

    with replaced(registry, "from_torchlib", staticmethod(from_torchlib)):
        yield


@contextlib.contextmanager
def _unparsed() -> Iterator[None]:
    """Within the block, no source is parsed: for each function the library asks for a domain that nothing uses."""
    from onnxscript.values import TracedOnnxFunction

    if not isinstance(vars(TracedOnnxFunction).get("function_ir"), property):
        yield
        return
    with replaced(TracedOnnxFunction, "function_ir", SimpleNamespace(domain="")):
        yield


class _Later:
    """What a function of the library says, read from its source when something of it is first asked for."""

    def __init__(self, read: Callable[[], Any], **known: Any) -> None:
        """`known` is what can be asked without reading; what is put into its `meta` is put into the real one too."""
        self.__dict__.update(known)
        self._read = read

    @functools.cached_property
    def real(self) -> Any:
        """The thing itself."""
        try:
            real = self._read()
        except AttributeError as error:  # as one, it would only send Python to `__getattr__`, and back here
            raise RuntimeError(f"a function of PyTorch's library of ONNX functions cannot be read: {error}") from error
        if "meta" in vars(self):
            real.meta.update(self.meta)
        return real

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def __repr__(self) -> str:
        return repr(self.real)


def _signature(read: Callable[..., Any]) -> Callable[..., _Later]:
    return lambda *arguments, **options: _Later(lambda: read(*arguments, **options))


def _body(read: Callable[..., Any]) -> Callable[..., _Later]:
    def later(tree: Any, opset: Any, *arguments: Any, **options: Any) -> _Later:
        read_now = functools.partial(read, tree, opset, *arguments, **options)
        return _Later(read_now, name=tree.name, domain=opset.domain, meta={})

    return later


_READERS = (
    ("torch.onnx._internal.exporter._schemas", "op_signature_from_function", _signature),
    ("onnxscript.ir._schemas", "op_signature_from_function", _signature),
    ("onnxscript._internal.main", "script_check", _body),
)
"""Functions that read sources, and what gives a promise in their place."""


@contextlib.contextmanager
def _read_later() -> Iterator[None]:
    """Within the block, signatures and bodies are promised: there are a thousand, of which a model needs some ten."""
    with contextlib.ExitStack() as stack:
        for where, name, promise in _READERS:
            try:
                module = importlib.import_module(where)
            except ImportError:
                continue
            if name in vars(module):
                stack.enter_context(replaced(module, name, promise(vars(module)[name])))
        yield


@contextlib.contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Within the block, a module or class has another attribute of a name that it has."""
    before = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


def _registry() -> Any:
    """The class that reads the library; `object` if this version of PyTorch has none of the name."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:
        return object
    return ONNXRegistry
