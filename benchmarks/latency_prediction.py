"""Latency that a search predicts from its table of layers, against that of the file.

    python benchmarks/latency_prediction.py samples/japanese_vowels/task.py

The original's file is measured; every other one is predicted from it and the table, as a search does for points that
it does not write, and then written and measured. Both are medians of one call on the same machine, minutes apart.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from compressor.plain_yaml import dump
from compressor.studies.search import files
from compressor.studies.search.goals import Goals
from compressor.studies.search.place import Place
from compressor.studies.search.preparing import prepare
from compressor.task.narrowed_states import NarrowedStates

_LEVELS = (0.25, 0.5, 0.75, 0.9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", help="FILE.py[:NAME]")
    task = parser.parse_args().task
    torch.set_num_threads(1)
    goals = Goals.model_validate({"max_drop": 1.0, "minimize": "latency", "trials": 1, "use": ["units", "width"]})
    rows = []
    with TemporaryDirectory() as folder:
        worker = prepare(goals, Place(task, Path(folder)))
        space, evaluator = worker.space, worker.evaluator
        for level in _LEVELS:
            point = space.at_rest | {knob.name: level for knob in space.knobs if knob.name in ("units", "width")}
            model = evaluator.compressed(point, 0)
            state = model.state
            layers = evaluator.table.of_model(state.model, NarrowedStates(evaluator.subject.task, state.structure))
            predicted = worker.graphs.latency(layers, None)
            measured = files.write(evaluator.subject, model, space.export(point), timed=True).latency_ms
            assert measured is not None
            row = {"removed": level, "predicted ms": predicted, "measured ms": measured}
            rows.append({name: round(value, 4) for name, value in row.items()})
            rows[-1]["predicted / measured"] = round(predicted / measured, 2)
        original = worker.original.latency_ms
        worker.store.close()
    print(f"original: {original:.4f} ms, of which {worker.graphs.original_ms:.4f} beside the layers of the table")
    print(dump(rows))


if __name__ == "__main__":
    main()
