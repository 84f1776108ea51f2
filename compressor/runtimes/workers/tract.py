"""tract: reads `.onnx`."""

from importlib import metadata

import numpy as np
import tract

VERSION = f"tract {metadata.version('tract')}, CPU"


class File:
    """A runnable model for inputs of one set of shapes; one for each set that is asked for, with every shape known.

    tract's own symbols do not unify in several graphs whose axes are open, and its users fix the shapes too.
    """

    def __init__(self, path, threads, description):
        self._path = path
        self._outputs = [item["dtype"] for item in description["outputs"]]
        self._for_shapes = {}
        self._loader = tract.onnx()
        self._loader.load(path)  # tells at once whether it can be read

    def run(self, arrays):
        shapes = tuple((array.shape, str(array.dtype)) for array in arrays)
        if shapes not in self._for_shapes:
            self._for_shapes[shapes] = self._runnable(arrays)
        results = self._for_shapes[shapes].run(list(arrays))
        return [
            np.asarray(result.to_numpy()).astype(dtype, copy=False)
            for result, dtype in zip(results, self._outputs, strict=True)
        ]

    def _runnable(self, arrays):
        model = self._loader.load(self._path)
        for index, array in enumerate(arrays):
            model.set_input_fact(index, ",".join([*map(str, array.shape), _FACTS[str(array.dtype)]]))
        model.analyse()
        return model.into_model().into_runnable()


_FACTS = {"float32": "f32", "float64": "f64", "int64": "i64", "int32": "i32", "bool": "bool"}
