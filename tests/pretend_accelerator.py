"""A pretend accelerator: a PyTorch device whose tensors lie on the CPU but refuse to mix with the CPU's own.

Importing this module makes `torch.device("pretend")` exist, by PyTorch's Python backend (torch >= 2.14). To every check
of PyTorch, and to our code, its tensors are those of another device: a forgotten `.to(device)` fails as it would on
CUDA. Recurrent layers run as plain operations, gradients included, as they do on an accelerator without a fused kernel.
Numbers are the CPU's, so results can be compared. What it cannot show: kernels, streams, speed, memory.

`torch.accelerator` finds it inside `available()` only, so `--device auto` of other tests in the process stays as it is.
"""

from __future__ import annotations

from contextlib import contextmanager

import torch
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from tests.pretend_recurrent import install

NAME = "pretend"
MOST_INDICES = 2
"""`index` and `index_put` take (tensor, indices, ...): indices may lie on the CPU, on CUDA too."""
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
_LENGTHS = {"_pack_padded_sequence", "_pack_padded_sequence_backward"}


class _State:
    is_available = False
    lacks_float64 = False


class _Backend(_DummyBackendModule):
    """What `torch.pretend` answers: one device. Random numbers are the CPU's: this one only keeps what it is told."""

    def __init__(self):
        self.state = torch.zeros(16, dtype=torch.uint8)
        self.seeds = []

    def is_available(self):
        return _State.is_available

    def get_rng_state(self, device=None):
        return self.state.clone()

    def set_rng_state(self, state, device=None):
        self.state = state.clone()

    def manual_seed(self, seed):
        self.seeds.append(seed)

    def get_amp_supported_dtype(self):
        return [torch.bfloat16, torch.float16]

    def synchronize(self, device=None):
        pass


class PretendTensor(torch.Tensor):
    """A tensor of the pretend device; `behind` is the CPU tensor behind it."""

    @staticmethod
    def __new__(cls, behind):
        if behind.dtype == torch.float64 and _State.lacks_float64:
            raise TypeError("Cannot convert a pretend Tensor to float64 dtype: the device has no float64")
        wrapper = torch.Tensor._make_wrapper_subclass(
            cls,
            behind.size(),
            strides=behind.stride(),
            storage_offset=behind.storage_offset(),
            dtype=behind.dtype,
            device=DEVICE,
            dispatch_sizes_strides_policy="sizes",  # asked of the tensor behind: `squeeze_` and its like change them
        )
        wrapper.behind = behind
        return wrapper

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {})

    def tolist(self):
        return self.behind.tolist()

    def untyped_storage(self):
        return self.behind.untyped_storage()

    def data_ptr(self):
        return self.behind.data_ptr()

    def __repr__(self):
        return f"pretend {self.behind!r}"


def _behind(value):
    if isinstance(value, torch.device) and value.type == NAME:
        return torch.device("cpu")
    return value.behind if isinstance(value, PretendTensor) else value


def _run(func, args, kwargs):
    """An operation on the tensors behind; its results lie where its arguments do."""
    name = func.overloadpacket.__name__
    if name == "copy_":  # the one that may mix
        _behind(args[0]).copy_(_behind(args[1]))
        return args[0]
    if name == "_to_copy":
        target = torch.device(kwargs.get("device") or args[0].device)
        copied = func(_behind(args[0]), **{key: value for key, value in kwargs.items() if key != "device"})
        return PretendTensor(copied) if target.type == NAME else copied
    tensors, _ = tree_flatten((args, kwargs))
    _refuse_mixed(func, name, args, tensors)
    results = func(*tree_map(_behind, args), **tree_map(_behind, kwargs))
    if name == "_pack_padded_sequence":
        return PretendTensor(results[0]), results[1]  # batch sizes stay on the CPU, as with CUDA
    wrappers = {id(part.behind): part for part in tensors if isinstance(part, PretendTensor)}  # of in-place operations

    def wrapped(value):
        if not isinstance(value, torch.Tensor):
            return value
        return wrappers[id(value)] if id(value) in wrappers else PretendTensor(value)

    return tree_map(wrapped, results)


def _refuse_mixed(func, name, args, tensors):
    """Scalars may come from the CPU, and so may lengths and indices; the values that are put may not."""
    if name in _LENGTHS:
        return
    if name in _INDEXED:
        tensors, _ = tree_flatten((args[0], args[MOST_INDICES:]))
    tensors = [part for part in tensors if isinstance(part, torch.Tensor)]
    pretend = [isinstance(part, PretendTensor) for part in tensors]
    plain = [part.dim() > 0 for part, is_pretend in zip(tensors, pretend, strict=True) if not is_pretend]
    if any(pretend) and any(plain):
        raise RuntimeError(f"Expected all tensors to be on the same device, but found {DEVICE} and cpu in {func}")


@contextmanager
def available(*, float64=True):
    """`torch.accelerator` finds the pretend device; without `float64` it refuses that type, as Apple's mps does."""
    before = _State.is_available, _State.lacks_float64
    _State.is_available, _State.lacks_float64 = True, not float64
    try:
        yield DEVICE
    finally:
        _State.is_available, _State.lacks_float64 = before


def _autocast(operation):
    """Under autocast, operands in its type, as an accelerator's matrix units take them."""

    def run(*args):
        dtype = torch.get_autocast_dtype(NAME)
        cast = [
            part.to(dtype) if isinstance(part, torch.Tensor) and part.is_floating_point() else part for part in args
        ]
        return operation(*cast)

    def without_autocast(*args):
        with torch.autocast(NAME, enabled=False):
            return run(*args)

    return without_autocast


_setup_privateuseone_for_python_backend(NAME, backend_module=_Backend())
DEVICE = torch.device(f"{NAME}:0")
_library = torch.library.Library("_", "IMPL")
_library.fallback(lambda func, *args, **kwargs: _run(func, args, kwargs), "PrivateUse1")
_library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")
_narrowed = torch.library.Library("aten", "IMPL")
for _name in ("linear", "matmul", "mm", "addmm", "bmm", "baddbmm"):
    _narrowed.impl(_name, _autocast(getattr(torch.ops.aten, _name)), "AutocastPrivateUse1")
_recurrent = install("AutogradPrivateUse1")
