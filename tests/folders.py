"""Folders with a task and a recipe, as a user has them, and runs of the one on the other."""

from compressor import recipe
from compressor.pipeline.run import run
from compressor.task import loading as tasks

BLOBS = """
import torch
from torch import nn
from compressor import Task

CENTRES = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))

def data(seed, count):
    random = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 12, (count,), generator=random)
    labels = torch.randint(0, 3, (count,), generator=random)
    features = CENTRES[labels][:, None] + torch.randn(count, 11, 7, generator=random)
    return (features, lengths), labels

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(7, 23, batch_first=True)
        self.head = nn.Linear(23, 3)

    def forward(self, features, lengths):
        steps = self.rnn(features)[0]
        return self.head(steps[torch.arange(steps.shape[0]), lengths - 1])

class Blobs(Task):
    inputs = {"features": {0: "batch", 1: "time"}, "lengths": {0: "batch"}}
    outputs = {"logits": {0: "batch"}}
    length, max_length = 11, 40

    def model(self):
        torch.manual_seed(1)
        return Net()

    def example(self, batch, length):
        return torch.randn(batch, length, 7), torch.full((batch,), length)

    def batches(self, generator):
        inputs, labels = data(1, 160)
        for chosen in torch.randperm(160, generator=generator).split(32):
            yield tuple(part[chosen] for part in inputs), labels[chosen]

    def loss(self, outputs, target):
        return nn.functional.cross_entropy(outputs, target)

    def evaluate(self, forward):
        inputs, labels = data(2, 101)
        return (forward(*inputs).argmax(1) == labels).float()
"""
"""A GRU that tells blobs apart; its data are drawn."""
HALF = """
schema_version: 1
name: half
seed: 3
steps:
  - {method: magnitude, prune: weights, sparsity: 0.3}
  - {method: magnitude, prune: units, ratio: 0.5}
  - {method: retrain, epochs: 2, lr: 1e-2}
exports:
  - format: onnx
limits:
  metric_drop: 0.5
"""
"""Steps of three kinds, for `BLOBS`."""


def recipe_of(*steps, exports=("{format: onnx}",), seed=0):
    """The text of a recipe of these steps and exports, each a mapping in one line of YAML."""
    entries = {"steps": steps, "exports": exports}
    lists = "".join(f"{key}:\n" + "".join(f"  - {entry}\n" for entry in several) for key, several in entries.items())
    return f"schema_version: 1\nname: tried\nseed: {seed}\n{lists}"


def write_folder(folder, task, text):
    """The folder, with `task.py` and `recipe.yaml`."""
    (folder / "task.py").write_text(task)
    (folder / "recipe.yaml").write_text(text)
    return folder


def carried_out(folder, out, *, overrides=(), device="cpu", **options):
    """The report of a run of the folder's recipe on its task, into another folder in it."""
    chosen = recipe.load(str(folder / "recipe.yaml"), overrides)
    return run(chosen, tasks.load(str(folder / "task.py")), folder / out, device=device, **options)


def rehearsed(folder, task, text):
    """The folder of a quick run of a recipe on a task, the task, and the report."""
    write_folder(folder, task, text)
    return folder / "run", tasks.load(str(folder / "task.py")), carried_out(folder, "run", quick=True)
