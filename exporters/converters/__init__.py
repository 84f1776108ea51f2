"""Modules that convert a traced program in another Python environment.

Like the modules of runtimes they are served by `compressor/runtimes/workers/serve.py`, started by path and never
imported by the package; they use PyTorch and their converter only. Each has `convert(request)`. A request has `program`
(a file of `torch.export.save`), `target`, `precision` (`float32`, `int8`, `int4`), `quantized` (the second file, where
`precision` is not `float32`), and `shapes`: for each input, a list of [axis, smallest, largest] for the axes that are
open. The answer has `operators` of the last file, by their number.
"""
