"""Python loops over time (recurrent cells called step by step) in files of any length.

`torch.export` writes a Python loop out, once for each step, which fixes the length. A model that calls PyTorch more
often for longer inputs (`detection`) is therefore traced at two lengths instead (`graph`), the repeated iteration is
found in both (`find`), what differs between the two lengths is written as a function of the length (`unify`), and a
module that computes the same at any length is traced once more (`plan`, `rolled`): what has no feedback for all steps
at once (`vectorized`), cells as native nodes, all else as `Scan` (`scan`).
"""
