"""Runtimes that run in processes of their own: `serve.py` serves one file, loaded by the module of its runtime here.

Nothing here but `chromium` is imported by the package: the modules are started by path, may run in another Python
environment, and use the standard library, NumPy and their runtime only. A module has `VERSION`, a text, and
`File(path, threads, description)` with `run(arrays) -> arrays`; `description` is a `compressor.report.FileDescription`
as plain values. If the process is not what runs the file, `File.timed(arrays, warmup, runs)` gives the nanoseconds of
each run, and `MEASURES_MEMORY` is false.
"""
