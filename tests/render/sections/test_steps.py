from compressor.methods import METHODS
from compressor.render import html, markdown
from compressor.render.sections.steps import facts, options, outcome
from compressor.report import Report
from tests.render.views import with_step


def test_facts_about_what_a_step_made_are_shown_and_survive_json(report):
    with_facts = with_step(report, facts={"nodes": 11.0, "density": 0.09375})
    assert facts(with_facts.steps[0]).rows == (("nodes", "11"), ("density", "0.09375"))
    assert "| nodes | 11 |" in markdown.page(with_facts)
    assert "0.09375" in html.page(with_facts)
    assert Report.from_json(with_facts.to_json()) == with_facts
    assert facts(report.steps[0]).rows == ()


def test_only_options_that_differ_from_their_defaults_are_shown(report):
    resolved = METHODS["retrain"](epochs=12, distill=True).model_dump(mode="json")
    step = report.steps[2].model_copy(update={"options": {"method": "retrain", **resolved}})
    assert options(step) == "epochs: 12, distill: true"


def test_all_options_of_a_method_that_is_not_known_are_shown(report):
    step = report.steps[2].model_copy(update={"method": "former", "options": {"depth": 1, "names": ["a"]}})
    assert options(step) == "depth: 1, names: [a]"


def test_zeros_are_counted_only_if_there_are_some(report):
    dense, masked, _ = report.steps
    assert "not zero" not in outcome(dense)
    assert outcome(masked).startswith("14,283 parameters, 10,275 of them not zero, accuracy 0.6600")
