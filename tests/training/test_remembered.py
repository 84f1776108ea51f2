"""A teacher's answers that are kept: the same numbers, computed once, and never more than so many bytes."""

import torch
from torch import nn

from compressor.training.distillation import Teacher
from compressor.training.remembered import Remembered


class Counting(nn.Linear):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


def loss(teacher, student, x, remembered=None, hidden=()):
    options = {"kind": "mse", "temperature": 1.0, "hidden": hidden, "example": ()}
    with Teacher(teacher, student, **options, remembered=remembered) as taught:
        return taught.loss([x], student(x))


def test_the_second_training_gets_the_same_loss_and_gradients_without_the_teacher():
    torch.manual_seed(0)
    teacher, student, x = Counting(5, 3), nn.Linear(5, 3), torch.randn(4, 5)
    memory = Remembered()
    found = []
    for remembered in (None, memory, memory):
        student.zero_grad()
        value = loss(teacher, student, x, remembered)
        value.backward()
        found.append((value.item(), student.weight.grad.clone()))
    assert teacher.calls == 2
    assert len({value for value, _ in found}) == 1
    assert all(torch.equal(found[0][1], gradient) for _, gradient in found)


def test_other_numbers_shapes_or_types_are_other_inputs():
    memory, asked = Remembered(), []
    for part in (torch.zeros(2, 3), torch.zeros(3, 2), torch.zeros(6), torch.ones(2, 3), torch.zeros(2, 3).double()):
        memory.answer([part], lambda part=part: asked.append(part) or part)
    assert len(asked) == 5
    memory.answer([torch.zeros(3, 2).t().contiguous()], lambda: asked.append("known"))
    assert len(asked) == 5


def test_inputs_of_any_type_and_number_of_axes_are_known_again():
    memory, asked = Remembered(), []
    numbers = torch.tensor([[0, 1], [1, 0]])
    inputs = [numbers.to(dtype) for dtype in (torch.bfloat16, torch.float16, torch.bool, torch.int64)]
    inputs += [torch.tensor(3.0), numbers.t()[1:], torch.zeros(0, 2)]
    for _ in range(2):
        for part in inputs:
            memory.answer([part], lambda part=part: asked.append(part) or torch.zeros(1))
    assert len(asked) == len(inputs)


def test_of_a_view_only_what_it_shows_is_kept():
    memory, whole = Remembered(), torch.randn(4, 1000, 5)
    for _ in range(2):
        answer = memory.answer([torch.zeros(1)], lambda: whole[:, -1])
        assert torch.equal(answer, whole[:, -1])
        assert answer.untyped_storage().nbytes() == 4 * 5 * 4


def test_no_more_than_so_many_bytes_are_kept():
    memory, asked = Remembered(most=40), []
    for _ in range(2):
        for value in range(3):
            part = torch.full((4,), float(value))
            memory.answer([part], lambda part=part: asked.append(float(part[0])) or part)
    assert asked == [0.0, 1.0, 2.0, 2.0]
