"""A task file, written where the test says."""

import textwrap

import pytest

BODY = """
    import torch
    from compressor import Task

    class Tiny(Task):
        def model(self):
            return torch.nn.Linear(3, 2)
        def example(self, batch, length):
            return (torch.zeros(batch, length, 3),)
        def batches(self, generator):
            yield (torch.zeros(2, 5, 3),), torch.zeros(2)
        def loss(self, outputs, target):
            return outputs.mean()
        def evaluate(self, forward):
            return 0.5
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(text):
        (tmp_path / "task.py").write_text(textwrap.dedent(text))
        return "task.py"

    return write
