"""`draw automaton`: a run whose recipe has the step gives tables and a figure; others are refused."""

import json
import textwrap

from compressor import checkpoint
from compressor.methods.automaton import Automaton
from compressor.methods.base import State
from compressor.task.loading import load
from tests.cli.conftest import call
from tests.methods.conftest import make_context

TASK = """
    import torch
    from torch import nn
    from compressor import Task


    class Last(nn.Module):
        \"\"\"An Elman layer that remembers the last symbol and nothing else.\"\"\"

        def __init__(self):
            super().__init__()
            self.embed, self.rnn = nn.Embedding(3, 3), nn.RNN(3, 3, batch_first=True)
            with torch.no_grad():
                self.embed.weight.copy_(torch.eye(3))
                self.rnn.weight_ih_l0.copy_(3 * torch.eye(3))
                for part in (self.rnn.weight_hh_l0, self.rnn.bias_ih_l0, self.rnn.bias_hh_l0):
                    part.zero_()

        def forward(self, symbols):
            return self.rnn(self.embed(symbols))[0][:, -1]


    class Symbols(Task):
        inputs = {"symbols": {0: "batch", 1: "time"}}
        outputs = {"scores": {0: "batch"}}
        length, min_length, max_length = 6, 1, 20

        def model(self):
            return Last()

        def example(self, batch, length):
            return (torch.randint(3, (batch, length)),)

        def batches(self, generator):
            for _ in range(4):
                yield (torch.randint(3, (32, 6), generator=generator),), None

        def loss(self, outputs, target):
            return outputs.sum()

        def evaluate(self, forward):
            return 1.0
"""


def test_the_tables_of_a_run_are_written(tmp_path):
    path = tmp_path / "task.py"
    path.write_text(textwrap.dedent(TASK))
    task = load(str(path))
    state = Automaton(max_clusters=4).apply(State(task.model().eval()), make_context(task.model(), task)).state
    run = tmp_path / "run"
    run.mkdir()
    checkpoint.save(run, state.model, state.structure)
    result = call("draw", "automaton", run, "--task", path, "--out", tmp_path / "made")
    assert result.code == 0, result.err
    assert len(json.loads((tmp_path / "made" / "automaton.json").read_text())["next"]) == 3
    assert {file.suffix for file in (tmp_path / "made").iterdir()} == {".json", ".dot", ".svg"}
    checkpoint.save(run, task.model(), ())
    refused = call("draw", "automaton", run, "--task", path, "--out", tmp_path / "none")
    assert refused.code == 2
    assert "made no automaton" in refused.err
