"""Models that lost units are exported to files that agree with PyTorch, whatever stands around the recurrent layers.

Each topology is exported with one kind of cell, in turn; `python benchmarks/conformance.py` exports all of them.
"""

from __future__ import annotations

import pytest

from tests.exporters.pruned import TOPOLOGIES, UNSEEN_BATCHES, check_exported, pruned, without_time
from tests.surgery.topologies import CELLS, CellLoop

CASES = {topology: (index, list(CELLS)[index % len(CELLS)]) for index, topology in enumerate(TOPOLOGIES)}


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda t: t.__name__)
def test_a_model_that_lost_units_is_exported_and_agrees_at_unseen_sizes(tmp_path, topology):
    seed, cell = CASES[topology]
    check_exported(*pruned(topology, cell, seed), tmp_path / "model.onnx")


def test_a_loop_over_a_cell_is_exported_and_agrees_where_its_length_is_fixed(tmp_path):
    model, task = pruned(CellLoop, "lstm")
    check_exported(model, without_time(task), tmp_path / "model.onnx", UNSEEN_BATCHES)
