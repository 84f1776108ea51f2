"""Models that lost units are exported to files that agree with PyTorch, whatever stands around the recurrent layers.

Each topology is exported with one kind of cell, in turn; `python benchmarks/conformance.py` exports all of them.
"""

from __future__ import annotations

import pytest

from compressor.errors import ExportError
from exporters.onnx import Options, export
from tests.exporters.pruned import TOPOLOGIES, UNSEEN_BATCHES, check_exported, pruned, without_time
from tests.surgery.topologies import CELLS, CellLoop

LIMITS = {CellLoop: "fixes axis `time`"}
CASES = {topology: (index, list(CELLS)[index % len(CELLS)]) for index, topology in enumerate(TOPOLOGIES)}


@pytest.mark.parametrize("topology", [t for t in TOPOLOGIES if t not in LIMITS], ids=lambda t: t.__name__)
def test_a_model_that_lost_units_is_exported_and_agrees_at_unseen_sizes(tmp_path, topology):
    seed, cell = CASES[topology]
    check_exported(*pruned(topology, cell, seed), tmp_path / "model.onnx")


def test_a_loop_over_a_cell_is_exported_and_agrees_where_its_length_is_fixed(tmp_path):
    model, task = pruned(CellLoop, "lstm")
    check_exported(model, without_time(task), tmp_path / "model.onnx", UNSEEN_BATCHES)


@pytest.mark.parametrize("topology", LIMITS, ids=lambda t: t.__name__)
def test_what_a_file_cannot_hold_is_refused_with_the_reason_and_leaves_no_file(tmp_path, topology):
    model, task = pruned(topology, "lstm")
    with pytest.raises(ExportError, match=LIMITS[topology]):
        export(model, task, tmp_path / "model.onnx", Options())
    assert not list(tmp_path.iterdir())
