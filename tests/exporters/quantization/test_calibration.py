"""Which training inputs rounding is measured on, and which others a file is compared on."""

from __future__ import annotations

import pytest
import torch

from compressor.errors import ExportError
from compressor.task.fixed_axes import fixed
from compressor.task.unlabelled import UnlabelledTask
from exporters.quantization.calibration import calibration


class Numbered(UnlabelledTask):
    """Batches of five sequences, each of which holds its own number; time is the first axis, the batch the second."""

    inputs = {"x": {0: "time", 1: "batch"}, "offset": {}}
    outputs = {"y": {0: "time", 1: "batch"}}
    length, max_length = 4, 9
    count, lengths = 5, (4,)

    def model(self):
        return torch.nn.Identity()

    def example(self, batch, length):
        return torch.full((length, batch, 3), -1.0), torch.zeros(2)

    def batches(self, generator):
        for index in range(self.count):
            numbers = torch.arange(5.0) + 5 * index
            length = self.lengths[index % len(self.lengths)]
            yield (numbers[None, :, None].expand(length, 5, 3), torch.ones(2)), None


def numbers(batches):
    """The numbers of the sequences in batches of inputs, and that each is whole."""
    assert all(inputs[0].shape[2] == 3 and inputs[1].tolist() in ([1, 1], [0, 0]) for inputs in batches)
    return [int(number) for inputs in batches for number in inputs[0][0, :, 0]]


@pytest.mark.parametrize("samples", [3, 5, 7])
def test_as_many_sequences_as_asked_for_are_seen_and_the_next_sixteen_are_unseen(samples):
    data = calibration(Numbered(), samples, 0, real=True)
    assert (numbers(data.seen), data.real) == (list(range(samples)), True)
    assert numbers(data.unseen) == list(range(samples, min(samples + 16, 25)))


def test_single_matrices_of_a_large_model_are_measured_on_some_of_every_batch():
    data = calibration(Numbered(), 25, 0, real=False)
    some = data.of_single_matrices(10**8)
    assert sorted({number // 5 for number in numbers(some)}) == [0, 1, 2, 3, 4]
    assert 16 <= len(numbers(some)) < 25
    assert data.of_single_matrices(1000) is data.seen
    assert numbers(calibration(Numbered(), 7, 0, real=False).of_single_matrices(10**8)) == list(range(7))


def test_without_others_some_of_the_same_are_compared():
    data = calibration(Numbered(), 25, 0, real=True)
    assert numbers(data.seen) == list(range(25))
    assert numbers(data.unseen) == [20, 21, 22, 23, 24]


def test_if_no_others_are_wanted_reading_stops_with_the_last_one_seen():
    task = Numbered()
    task.count = 10**9
    data = calibration(task, 7, 0, real=False)
    assert numbers(data.seen) == list(range(7))


def test_batches_of_other_sizes_than_the_file_fixes_are_left_out():
    task = Numbered()
    task.lengths = (4, 6)
    data = calibration(fixed(task, {"time": 6}), 10, 0, real=True)
    assert numbers(data.seen) == [5, 6, 7, 8, 9, 15, 16, 17, 18, 19]


def test_if_all_have_other_sizes_these_are_named():
    task = Numbered()
    task.lengths = (4, 6)
    with pytest.raises(
        ExportError, match="no batch of training data has the sizes of `shapes`: there are time 4, time 6"
    ):
        calibration(fixed(task, {"time": 7}), 10, 0, real=True)


def test_the_size_of_a_batch_is_free_although_the_file_fixes_it():
    assert numbers(calibration(fixed(Numbered(), {"batch": 2}), 5, 0, real=True).seen) == [0, 1, 2, 3, 4]


def test_without_training_data_examples_do_unless_it_has_to_be_real():
    task = Numbered()
    task.count = 0
    data = calibration(task, 20, 0, real=False)
    assert (numbers(data.seen), data.real) == ([-1] * 16, False)
    with pytest.raises(ExportError, match="`batches` give no data to calibrate with"):
        calibration(task, 20, 0, real=True)


def test_data_that_is_not_finite_is_refused_by_the_name_of_its_input():
    class Broken(Numbered):
        def batches(self, generator):
            for (x, offset), target in super().batches(generator):
                yield (x, offset * torch.inf), target

    with pytest.raises(ExportError, match="the training data has NaN or infinity in `offset`"):
        calibration(Broken(), 5, 0, real=False)
