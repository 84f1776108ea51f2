"""What the report says of open axes."""

from compressor.pipeline.axes import open_axes
from compressor.task.guard import GuardedTask
from tests.task.test_sizes import Aligning
from tests.task.test_submodules import Transducing


def test_what_was_found_and_what_is_declared_is_told_apart():
    declared = {"source": {0: "batch", 1: "time"}, "target": {0: "batch", 1: "target_length"}}
    found = open_axes(GuardedTask(type("Declared", (Aligning,), {"inputs": declared})(), __file__))
    assert found.sizes == {"batch": (2, 3), "time": (8, 4), "target_length": (4, 5)}
    assert [(tensor.name, tensor.enters, tensor.declared) for tensor in found.tensors] == [
        ("source", True, True),
        ("target", True, True),
        ("output", False, False),
    ]
    assert found.tensors[2].axes == {0: "batch", 1: "target_length", 2: "time"}


def test_the_modules_follow_the_whole_model():
    found = open_axes(GuardedTask(Transducing(), __file__))
    names = [f"{tensor.module}.{tensor.name}" for tensor in found.tensors if tensor.enters]
    assert names == [".audio", ".symbols", "transcribe.input", "predict.symbol", "predict.state", "join.input"]
