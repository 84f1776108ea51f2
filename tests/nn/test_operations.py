import torch

from compressor.nn.operations import Operations


class Names(Operations):
    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


def test_every_operation_is_seen_and_none_is_changed():
    x = torch.arange(6.0).view(2, 3)
    with Names() as names:
        y = torch.nn.functional.linear(x, x)
    assert torch.equal(y, x @ x.T)
    assert torch.ops.aten.mm.default in names.seen


def test_a_subclass_is_not_wrapped_so_that_entering_it_imports_no_compiler():
    assert not hasattr(Names.__torch_dispatch__, "__wrapped__")
    wrapped = type("Wrapped", (torch.utils._python_dispatch.TorchDispatchMode,), dict(vars(Names)))
    assert hasattr(wrapped.__torch_dispatch__, "__wrapped__")  # what PyTorch does otherwise
