"""What a journal keeps of a metric is what was measured."""

import numpy as np
import torch

from compressor.measure import accuracy
from compressor.pipeline.evaluation_form import EvaluationForm
from compressor.report import Score


def test_an_evaluation_keeps_the_groups_of_its_samples():
    before, after = np.random.default_rng(0).random((2, 12))
    groups = np.arange(12) // 3
    score = Score(metric="accuracy", value=float(before.mean()), samples=12, groups=4)
    measured = accuracy.Examined(score, before, groups)
    again, (call,) = EvaluationForm().read(EvaluationForm().write((measured, [(torch.ones(2),)])))
    assert again.score == score
    assert torch.equal(call[0], torch.ones(2))
    other = accuracy.Examined(score, after, groups)
    assert accuracy.drop(again, other) == accuracy.drop(measured, other)
    assert accuracy.drop(again, other) != accuracy.drop(accuracy.Examined(score, before), other)
