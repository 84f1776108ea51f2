"""LiteRT: a traced program with every shape known becomes `.tflite`; the quantizer makes a second file of it."""

from collections import Counter
from pathlib import Path

import litert_torch
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from ai_edge_quantizer import quantizer, recipe

_RECIPES = {"int8": recipe.dynamic_wi8_afp32, "int4": recipe.dynamic_wi4_afp32}


def _quantize(source, target, precision):
    worker = quantizer.Quantizer(str(source))
    worker.load_quantization_recipe(_RECIPES[precision]())
    worker.quantize().export_model(str(target), overwrite=True)


def _operators(path):
    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=resolver)
    return dict(Counter(operator["op_name"] for operator in interpreter._get_ops_details()))


def convert(request):
    """Convert as a request says."""
    program = torch.export.load(request["program"])
    target = Path(request["target"])
    with torch.no_grad():
        litert_torch.convert(program.module(check_guards=False), program.example_inputs[0]).export(str(target))
    final = target
    if request["precision"] != "float32":
        final = Path(request["quantized"])
        _quantize(target, final, request["precision"])
    return {"operators": _operators(final)}
