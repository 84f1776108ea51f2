"""Every view shows what a probe found, and a loss is said at the end."""

import pytest

from compressor.measure.statistics import difference_interval, mean_interval
from compressor.probing.associative_recall import AssociativeRecall
from compressor.probing.long_gap import LongGap
from compressor.probing.state_tracking import StateTracking
from compressor.render import html
from compressor.render.sections import probes as shown
from compressor.render.sections.summary import statements
from compressor.report import Drop, Interval, Probe, ProbeLength, ProbeResult, ProbeScore, Report, Skip
from tests.render.views import VIEWS, on_terminal, said


def at(length, chance, original, converted, verdict):
    first, second = ([centre, centre + 0.004, centre - 0.004] for centre in (original, converted))
    return ProbeLength(
        length=length,
        chance=chance,
        original=ProbeScore(accuracies=tuple(first), mean=original, interval=mean_interval(first)),
        converted=ProbeScore(accuracies=tuple(second), mean=converted, interval=mean_interval(second)),
        drop=Drop(value=original - converted, interval=difference_interval(first, second)),
        verdict=verdict,
    )


def result(task, trained, longer):
    return ProbeResult(
        **task.described(),
        trained=at(task.length, task.chance(task.length), *trained),
        longer=at(2 * task.length, task.chance(2 * task.length), *longer),
        steps_original=(150, 200, 150),
        steps_converted=(600, 600, 600),
        parameters_original=17152,
        parameters_converted=17216,
    )


def probe_of(*results):
    return Probe(
        modules=("encoder.layers.0.self_attn",),
        original="causal attention",
        converted="Aaren",
        original_size="2 layers, 4 heads",
        converted_size="2 layers, 4 heads",
        results=results,
        seeds=3,
        effort={"width": 32, "steps": 600, "batch": 64, "lr": 5e-3, "solved": 0.995, "scored": 512},
        margin=0.05,
        learned=0.2,
    )


LOST = result(AssociativeRecall(), (0.99, 0.25, "lost"), (0.52, 0.13, "lost"))
SILENT = result(StateTracking(), (0.17, 0.168, "neither"), (0.17, 0.166, "neither"))
KEPT = result(LongGap(), (0.99, 0.989, "kept"), (0.96, 0.95, "kept"))


@pytest.fixture(scope="module")
def probed(report):
    step = report.steps[0].model_copy(update={"method": "aaren", "probes": (probe_of(LOST, SILENT, KEPT),)})
    return report.model_copy(update={"steps": (step, *report.steps[1:])})


def test_a_report_with_probes_survives_json(probed):
    assert Report.from_json(probed.to_json()) == probed


@pytest.mark.parametrize("show", VIEWS)
def test_every_view_shows_both_accuracies_the_verdicts_and_the_conditions(probed, show):
    text = " ".join(show(probed, **({"width": 200} if show is on_terminal else {})).replace("\\", "").split())
    for wanted in (
        "causal attention (2 layers, 4 heads) → Aaren (2 layers, 4 heads) in encoder.layers.0.self_attn",
        "associative recall, 4 pairs of 16 symbols, length 12", "0.990 ± 0.010", "0.740 ± 0.009", "LOST", "kept",
        "neither learns it: no conclusion", "0.520 → 0.130 (chance 0.125): LOST", "mean of 3 seeds",
        "17,152 and 17,216 parameters", "will suffer",
    ):  # fmt: skip
        assert wanted in text


def test_the_page_marks_a_loss(probed):
    assert '<td data-name="verdict" class="bad">LOST</td>' in html.page(probed)


def test_what_is_lost_is_said_as_bad_news_with_what_it_means_for_data(probed):
    verdict, *said = [item for item in statements(probed) if "`aaren`" in item.text or "Aaren" in item.text]
    assert (verdict.tone, verdict.text) == (
        "bad",
        "Verdict: `aaren` loses associative recall; it is safe for data that need none of that.",
    )
    assert [item.tone for item in said] == ["bad", "good", "plain"]
    assert said[0].text.startswith(
        "`aaren` loses associative recall (to look up what came with a key earlier in the sequence): accuracy 0.990 "
        "with causal attention after 200 steps, 0.250 with Aaren after 600, trained identically; chance 0.250. Data in"
    )
    assert said[1].text == "`aaren` keeps long gap with distractors, on synthetic tasks."
    assert said[2].text.startswith("Neither causal attention nor Aaren learned state tracking (S3) in so few steps")


GAP_LOST = result(LongGap(), (0.99, 0.13, "lost"), (0.98, 0.13, "lost"))
STATE_LOST = result(StateTracking(), (0.99, 0.2, "lost"), (0.98, 0.17, "lost"))
GAP_OPEN = result(LongGap(), (0.99, 0.9, "undecided"), (0.98, 0.9, "undecided"))


@pytest.mark.parametrize(
    ("results", "tone", "text"),
    [
        ((GAP_LOST, STATE_LOST, SILENT), "bad", "It loses long memory and state tracking; it is safe for data"),
        ((KEPT, SILENT), "good", "It is safe as far as synthetic tasks tell: long memory kept."),
        ((GAP_OPEN, SILENT), "plain", "undecided whether It keeps long memory; nothing is known to be lost."),
        ((SILENT,), "plain", "none on It, since neither side learned a task."),
    ],
)
def test_the_verdict_is_one_sentence(results, tone, text):
    verdict = shown.verdict(probe_of(*results), "It")
    assert verdict.tone == tone
    assert verdict.text.startswith(f"Verdict: {text}")


def test_a_loss_at_longer_sequences_only_is_said_too():
    longer = result(LongGap(), (0.99, 0.99, "kept"), (0.98, 0.4, "lost"))
    bad, good = shown.statements(probe_of(longer), "It")
    assert (bad.tone, good.tone) == ("bad", "good")
    assert "beyond those of training: 0.980 → 0.400 at length 64, chance 0.125." in bad.text


def test_a_loss_that_is_not_down_to_chance_may_be_slow_learning():
    partial = result(LongGap(), (0.99, 0.55, "lost"), (0.98, 0.5, "undecided"))
    (bad,) = shown.statements(probe_of(partial), "It")
    assert bad.text.startswith("It loses part of long gap with distractors, or learns it more slowly (to keep what")


def test_a_task_learned_in_its_easier_form_is_not_called_silent():
    hard = result(AssociativeRecall(), (0.25, 0.26, "neither"), (0.12, 0.12, "neither"))
    easy = result(AssociativeRecall().easier(), (0.99, 0.7, "undecided"), (0.4, 0.3, "undecided"))
    (said,) = shown.statements(probe_of(hard, easy), "It")
    assert said.text.startswith("Undecided, within noise, whether It keeps associative recall (2 pairs of 4 symbols):")
    assert shown.table(probe_of(hard, easy)).rows[1][0].endswith("2 pairs of 4 symbols, length 6, 3 times the steps")


@pytest.mark.parametrize(
    ("drop", "low", "high", "text"),
    [
        (0.0, -0.1, 0.1, "about 12 seeds would tell (`compressor probe --seeds 12`"),
        (0.15, 0.0, 0.3, "about 7 seeds would tell"),
        (0.05, -0.1, 0.2, "100 seeds may not tell"),
    ],
)
def test_an_undecided_probe_says_what_would_decide_it(drop, low, high, text):
    undecided = result(LongGap(), (0.9, 0.8, "undecided"), (0.9, 0.8, "undecided"))
    interval = Interval(low=low, high=high)
    trained = undecided.trained.model_copy(update={"drop": Drop(value=drop, interval=interval)})
    (said,) = shown.statements(probe_of(undecided.model_copy(update={"trained": trained})), "It")
    assert text in said.text


def test_a_step_that_was_not_probed_says_so(report):
    step = report.steps[0].model_copy(update={"unprobed": (Skip(name="rnn", reason="it was not wanted"),)})
    text = said(report.model_copy(update={"steps": (step, *report.steps[1:])}))
    assert "`magnitude` replaced the architecture of rnn" in text
    assert "was not probed: it was not wanted." in text


def test_small_negative_drops_are_not_printed_as_minus_zero():
    even = result(LongGap(), (0.99, 0.9901, "kept"), (0.99, 0.9901, "kept"))
    assert shown.table(probe_of(even)).rows[0][4].startswith("0.000 ±")


def test_layers_that_were_not_probed_for_the_same_reason_share_a_sentence(report):
    unprobed = (Skip(name="one", reason="not wanted"), Skip(name="two", reason="not wanted"))
    (statement,) = shown.of_step(report.steps[0].model_copy(update={"unprobed": unprobed}))
    assert statement.text.startswith("`magnitude` replaced the architecture of one, two. What")
