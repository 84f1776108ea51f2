"""LiteRT: `.tflite`."""

from importlib import metadata

from ai_edge_litert.interpreter import Interpreter

VERSION = f"LiteRT {metadata.version('ai-edge-litert')}, CPU (XNNPACK)"


class File:
    """An interpreter on the CPU; inputs and outputs are numbered in the names of the file's one signature.

    Integers of 64 bits may have become such of 32, so inputs get the dtype of the file and outputs that of PyTorch.
    """

    def __init__(self, path, threads, description):
        self._interpreter = Interpreter(model_path=path, num_threads=threads)
        self._interpreter.allocate_tensors()
        runner = self._interpreter.get_signature_runner()
        self._inputs = _in_order(runner.get_input_details())
        self._outputs = _in_order(runner.get_output_details())
        for kind, found in (("inputs", self._inputs), ("outputs", self._outputs)):
            if len(found) != len(description[kind]):
                raise ValueError(f"the file has {len(found)} {kind}, its description {len(description[kind])}")
        self._dtypes = [item["dtype"] for item in description["outputs"]]

    def run(self, arrays):
        for (index, dtype), array in zip(self._inputs, arrays, strict=True):
            self._interpreter.set_tensor(index, array.astype(dtype, copy=False))
        self._interpreter.invoke()
        return [
            self._interpreter.get_tensor(index).astype(dtype, copy=False)
            for (index, _), dtype in zip(self._outputs, self._dtypes, strict=True)
        ]


def _in_order(details):
    """Tensors by the number at the end of their names: `args_2` before `args_10`."""
    names = sorted(details, key=lambda name: int(name.rpartition("_")[2]))
    return [(details[name]["index"], details[name]["dtype"]) for name in names]
