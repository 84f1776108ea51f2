import pytest

from compressor.render.sections.header import verdict
from compressor.report import Limit, Skip

MET = Limit(name="speedup", limit=2.0, reached=3.0, met=True)
MISSED = Limit(name="metric_drop", limit=0.01, reached=0.3, met=False)


@pytest.mark.parametrize(
    ("facts", "tone", "text"),
    [
        ({"limits": (MET,)}, "good", "1 limit met"),
        ({"limits": (MET, MISSED)}, "bad", "1 of 2 limits missed"),
        ({"limits": (MET,), "refused": (Skip(name="ncnn", reason="no"),)}, "bad", "1 export failed"),
        ({"limits": (MET,), "quick": True}, "bad", "rehearsal"),
        ({"limits": ()}, "plain", "no limits set"),
    ],
)
def test_the_worst_news_are_the_verdict(report, facts, tone, text):
    found = verdict(report.model_copy(update=facts))
    assert (found.tone, found.text) == (tone, text)
