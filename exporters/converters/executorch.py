"""ExecuTorch: a traced program becomes `.pte`, with what XNNPACK can run in parts of its own."""

from collections import Counter
from pathlib import Path

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
    XnnpackDynamicallyQuantizedPartitioner,
    XnnpackPartitioner,
)
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import to_edge_transform_and_lower
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e


def _write(program, target, partitioners):
    edge = to_edge_transform_and_lower(program, partitioner=partitioners)
    operators = Counter(
        "XNNPACK" if node.name.startswith("executorch_call_delegate") else _name(node)
        for node in edge.exported_program().graph.nodes
        if node.op == "call_function"
    )
    operators.pop("getitem", None)
    with Path(target).open("wb") as file:
        edge.to_executorch().write_to_file(file)
    return dict(operators)


def _name(node):
    schema = getattr(node.target, "_schema", None)
    return (
        schema.name.removeprefix("aten::") if schema is not None else getattr(node.target, "__name__", str(node.target))
    )


def _quantized(program, shapes):
    """Weights in 8 bits with a scale for each output, activations in 8 bits with the scale of the moment."""
    given = program.example_inputs[0]
    quantizer = XNNPACKQuantizer()
    quantizer.set_global(get_symmetric_quantization_config(is_per_channel=True, is_dynamic=True))
    module = prepare_pt2e(program.module(check_guards=False), quantizer)
    module(*given)
    dimension = torch.export.Dim.DYNAMIC
    dynamic = tuple({axis: dimension(min=low, max=high) for axis, low, high in axes} for axes in shapes)
    return torch.export.export(convert_pt2e(module), given, dynamic_shapes=dynamic, strict=False)


def convert(request):
    """Convert as a request says."""
    program = torch.export.load(request["program"])
    with torch.no_grad():
        operators = _write(program, request["target"], [XnnpackPartitioner()])
        if request["precision"] != "float32":
            program = torch.export.load(request["program"])  # the first conversion changed it
            partitioners = [XnnpackDynamicallyQuantizedPartitioner(), XnnpackPartitioner()]
            operators = _write(_quantized(program, request["shapes"]), request["quantized"], partitioners)
    return {"operators": operators}
