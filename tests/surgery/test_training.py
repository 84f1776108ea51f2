"""What only training reaches is followed by no trace: it is tried before the smaller model is handed out."""

import pytest
import torch
from torch import nn

from compressor.errors import SurgeryError
from tests.surgery.trace.chains import sequences, smaller


class Auxiliary(nn.Module):
    """A second head in training alone, on the units or on the inputs."""

    def __init__(self, *, on_units):
        super().__init__()
        self.first, self.head = nn.GRU(5, 12, batch_first=True), nn.Linear(12, 3)
        self.norm = nn.BatchNorm1d(3)
        self.auxiliary, self.on_units = nn.Linear(12 if on_units else 5, 3), on_units

    def forward(self, x):
        y = self.first(x)[0]
        result = self.norm(self.head(y).flatten(0, 1))
        if self.training:
            return result + self.auxiliary(y if self.on_units else x).flatten(0, 1)
        return result


def test_units_that_only_training_reads_are_refused_with_the_line():
    with pytest.raises(
        SurgeryError, match=r"in training the smaller model cannot run: .*test_training\.py:\d+"
    ) as error:
        smaller(Auxiliary(on_units=True), sequences())
    assert "what only training reaches is not followed" in error.value.message


def test_a_head_of_training_that_reads_something_else_is_no_hindrance():
    model = Auxiliary(on_units=False)
    found = smaller(model, sequences())
    assert found.first.hidden_size == 6
    assert not found.training
    assert int(found.norm.num_batches_tracked) == int(model.norm.num_batches_tracked) == 0
    assert torch.equal(found.norm.running_mean, torch.zeros(3).double())


def test_a_model_that_cannot_train_on_the_example_either_is_not_judged_by_it():
    class Single(nn.Module):
        """In training a batch normalisation needs two samples."""

        def __init__(self):
            super().__init__()
            self.first, self.norm, self.head = nn.Linear(5, 12), nn.BatchNorm1d(12), nn.Linear(12, 3)

        def forward(self, x):
            return self.head(self.norm(self.first(x)))

    found = smaller(Single(), [torch.randn(1, 5).double(), torch.randn(4, 5).double()])
    assert found.head.in_features == 6
