from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from compressor.errors import MethodError
from compressor.training.distillation import Teacher, cosine, first_tensor, kl, mse, output_loss

POSITIONS = [(7,), (3, 5, 7), (1, 2)]


def naive_kl(student, teacher, temperature):
    p = [[math.exp(x / temperature) for x in row] for row in teacher.reshape(-1, teacher.shape[-1]).tolist()]
    q = [[math.exp(x / temperature) for x in row] for row in student.reshape(-1, student.shape[-1]).tolist()]
    total = 0.0
    for a, b in zip(p, q, strict=True):
        total += sum(x / sum(a) * math.log((x / sum(a)) / (y / sum(b))) for x, y in zip(a, b, strict=True))
    return temperature**2 * total / len(p)


def naive_mse(student, teacher, _temperature):
    pairs = list(zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True))
    return sum((a - b) ** 2 for a, b in pairs) / len(pairs)


def naive_cosine(student, teacher, _temperature):
    rows = list(zip(student.reshape(-1, student.shape[-1]), teacher.reshape(-1, teacher.shape[-1]), strict=True))
    return sum(1 - float(a @ b / (a.norm() * b.norm())) for a, b in rows) / len(rows)


NAIVE = {"kl": naive_kl, "mse": naive_mse, "cosine": naive_cosine}


def tensors(shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    return student.requires_grad_(), teacher


@pytest.mark.parametrize("shape", POSITIONS)
@pytest.mark.parametrize("kind", ["kl", "mse", "cosine"])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_losses_agree_with_their_formulas(kind, shape, temperature):
    student, teacher = tensors(shape)
    found = output_loss(kind, student, teacher, temperature)
    assert found.item() == pytest.approx(NAIVE[kind](student.detach(), teacher, temperature))


@pytest.mark.parametrize("shape", POSITIONS)
@pytest.mark.parametrize("loss", [lambda s, t: kl(s, t, 3.0), mse, cosine])
def test_gradients_of_losses_agree_with_finite_differences(loss, shape):
    student, teacher = tensors(shape)
    assert torch.autograd.gradcheck(lambda s: loss(s, teacher), (student,))


def test_the_gradient_of_kl_is_temperature_times_the_difference_of_the_softmaxes():
    student, teacher = tensors((5, 7))
    kl(student, teacher, 3.0).backward()
    difference = (student.detach() / 3).softmax(-1) - (teacher / 3).softmax(-1)
    torch.testing.assert_close(student.grad, 3.0 * difference / 5)


@pytest.mark.parametrize("kind", ["kl", "mse", "cosine"])
def test_a_student_that_equals_its_teacher_has_no_loss(kind):
    _, teacher = tensors((3, 5))
    assert output_loss(kind, teacher, teacher, 2.0).item() == pytest.approx(0.0, abs=1e-15)


def test_the_first_tensor_of_what_a_recurrent_layer_gives_is_its_sequence():
    outputs = nn.LSTM(3, 5)(torch.zeros(2, 1, 3))
    assert first_tensor(outputs) is outputs[0]
    packed = nn.utils.rnn.pack_sequence([torch.zeros(2, 3)])
    assert first_tensor(nn.GRU(3, 5)(packed)).shape == (2, 5)
    assert first_tensor({"logits": 1}) is None


class Tagger(nn.Module):
    def __init__(self, hidden):
        super().__init__()
        self.rnn = nn.GRU(3, hidden, batch_first=True)
        self.spare = nn.Linear(3, 3)
        self.head = nn.Linear(hidden, 2)

    def forward(self, x):
        return self.head(self.rnn(x)[0])


def teacher_of(student, hidden=(), teacher=None):
    example = (torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)),)
    teacher = teacher or Tagger(7)
    return Teacher(teacher, student, kind="mse", temperature=1.0, hidden=hidden, example=example), example


def test_a_narrower_hidden_layer_is_matched_through_a_learned_map():
    student = Tagger(5)
    teacher, example = teacher_of(student, ["rnn"])
    with teacher:
        teacher.loss(example, student(*example)).backward()
    (projection,) = teacher.parameters().values()
    assert projection.shape == (7, 5)
    assert projection.grad.any()
    assert student.rnn.weight_hh_l0.grad.any()


def test_the_hidden_loss_adds_the_mean_squared_error_of_equal_shapes():
    student, model = Tagger(7), Tagger(7)
    teacher, example = teacher_of(student, ["rnn"], model)
    with teacher, torch.no_grad():
        found = teacher.loss(example, student(*example))
        expected = mse(student(*example), model(*example)) + mse(student.rnn(*example)[0], model.rnn(*example)[0])
    torch.testing.assert_close(found, expected)
    assert not teacher.parameters()


def test_hooks_are_gone_after_distillation_and_after_a_refusal():
    student, model = Tagger(5), Tagger(7)
    with teacher_of(student, ["rnn"], model)[0]:
        assert model.rnn._forward_hooks
    with pytest.raises(MethodError, match="`spare` is not called in `forward`"):
        teacher_of(student, ["rnn", "spare"], model)
    assert not model.rnn._forward_hooks
    assert not student.rnn._forward_hooks


@pytest.mark.parametrize("kind", ["kl", "cosine"])
@pytest.mark.parametrize("flat", [False, True])
def test_one_number_a_sample_has_nothing_to_compare_but_its_distance(kind, flat):
    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 1)

        def forward(self, x):
            return self.linear(x).squeeze(-1) if flat else self.linear(x)

    teacher, student, x = One(), One(), torch.randn(4, 3)
    options = {"temperature": 2.0, "hidden": (), "example": (x,)}
    with (
        Teacher(teacher, student, kind=kind, **options) as taught,
        pytest.raises(MethodError, match=rf"`distill_loss: {kind}` compares") as error,
    ):
        taught.loss((x,), student(x))
    assert error.value.hint == "set `distill_loss: mse`"
    with Teacher(teacher, student, kind="mse", **options) as taught:
        assert float(taught.loss((x,), student(x)).detach()) > 0


def test_outputs_of_other_shapes_are_refused():
    student = nn.GRU(3, 5, batch_first=True)
    teacher, example = teacher_of(student)
    with teacher, pytest.raises(MethodError, match=r"the model gives outputs \(2, 5, 5\), the original \(2, 5, 2\)"):
        teacher.loss(example, student(*example))
