"""A small task file, and the command line called in this process."""

import contextlib
import io
import textwrap
from dataclasses import dataclass

import pytest

from compressor.cli import execute

TASK = """
    import torch
    from torch import nn

    from compressor import Task


    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.gru = nn.GRU(3, 11, batch_first=True)
            self.out = nn.Linear(11, 2)

        def forward(self, features):
            return self.out(self.gru(features)[0][:, -1])


    class Signs(Task):
        inputs = {"features": {0: "batch", 1: "time"}}
        outputs = {"logits": {0: "batch"}}
        length, min_length, max_length = 7, 2, 13

        def model(self):
            torch.manual_seed(5)
            return Net()

        def example(self, batch, length):
            return (torch.randn(batch, length, 3),)

        def batches(self, generator):
            for _ in range(5):
                features = torch.randn(17, 7, 3, generator=generator)
                yield (features,), (features[:, -1, 0] > 0).long()

        def loss(self, outputs, target):
            return nn.functional.cross_entropy(outputs, target)

        def evaluate(self, forward):
            features = torch.randn(101, 7, 3, generator=torch.Generator().manual_seed(1))
            return (forward(features).argmax(1) == (features[:, -1, 0] > 0)).float()
"""

RECIPE = """
    schema_version: 1
    name: tiny
    steps:
      - {method: magnitude, prune: units, count: 5}
      - {method: retrain, epochs: 2, lr: 1e-2}
    exports:
      - format: onnx
    limits:
      parameters_ratio: 1.5
"""


@dataclass(frozen=True)
class Result:
    """What a command gave."""

    code: int
    out: str
    err: str


def call(*arguments: object) -> Result:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = execute([str(argument) for argument in arguments])
        except SystemExit as stop:  # completion ends the process itself
            code = int(stop.code or 0)
    return Result(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A folder with `task.py` and `recipe.yaml`."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "task.py").write_text(textwrap.dedent(TASK))
    (folder / "recipe.yaml").write_text(textwrap.dedent(RECIPE))
    return folder


@pytest.fixture(scope="session")
def finished(files):
    """The folder and the result of one whole run."""
    out = files / "out"
    return out, call("run", files / "recipe.yaml", "--task", files / "task.py", "--out", out, "--quick")
