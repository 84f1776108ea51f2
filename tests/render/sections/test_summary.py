import pytest

from compressor.render.changes import tone_of_speed
from compressor.render.sections.summary import statements
from compressor.report import Drop, Emulated, Interval, ParityPoint, SpeedUp
from tests.render.sections.test_rounding import rounded
from tests.render.views import changed, said


def test_noise_is_called_noise(report):
    noise = SpeedUp(ratio=1.004, interval=Interval(low=0.985, high=1.03), within_noise=True)
    text = said(report.model_copy(update={"speedups": (noise,)}))
    assert (
        "No measurable change in speed: 1.00x, within noise (95 % interval 0.985x to 1.03x, which includes 1)." in text
    )


@pytest.mark.parametrize(("ratio", "low", "high"), [(1.011, 1.004, 1.018), (0.991, 0.982, 0.996)])
def test_a_ratio_that_nearly_touches_1_is_no_claim(report, ratio, low, high):
    near = SpeedUp(ratio=ratio, interval=Interval(low=low, high=high), within_noise=False)
    text = said(report.model_copy(update={"speedups": (near,)}))
    assert "About as fast as before" in text
    assert "runs" not in text.partition("About as fast")[2].partition(".")[0]
    assert "is slower" not in text
    assert tone_of_speed(near) == "plain"
    clear = SpeedUp(ratio=1.03, interval=Interval(low=1.021, high=1.04), within_noise=False)
    assert "The file runs 1.03x as fast" in said(report.model_copy(update={"speedups": (clear,)}))


def test_training_that_was_of_no_use_is_told(report):
    step = report.steps[-1].model_copy(update={"changes": (), "notes": ("the weights from before training kept",)})
    text = said(report.model_copy(update={"steps": (*report.steps[:-1], step)}))
    assert f"{step.method} changed nothing: the weights from before training kept." in text


def test_slower_is_called_slower(report):
    slower = SpeedUp(ratio=0.8, interval=Interval(low=0.78, high=0.83), within_noise=False)
    assert "The file is slower: 0.800x as fast" in said(report.model_copy(update={"speedups": (slower,)}))


def test_a_drop_that_may_be_chance_says_so_and_one_that_is_not_does_not(report):
    assert "0.0054 worse" in said(report)
    assert "with 370 samples this may be chance" in said(report)
    sure = Drop(value=0.02, interval=Interval(low=0.01, high=0.03))
    assert "chance" not in said(changed(report, drop=sure))


def test_speeds_of_a_crowded_machine_are_called_so(report):
    def loaded(load):
        return report.model_copy(
            update={"environment": report.environment.model_copy(update={"load": load, "cores": 2})}
        )

    assert "The machine was busy (24 processes for 2 cores)" in said(loaded(24.2))
    assert not any("busy" in said(loaded(load)) for load in (None, 3.9))
    assert "busy" not in said(loaded(24.2).model_copy(update={"speedups": (None,)}))


def test_few_samples_are_a_caution_and_groups_count_as_samples(report):
    assert "Only" not in said(report)

    def scored(**facts):
        return report.model_copy(
            update={
                "original": report.original.model_copy(update={"score": report.original.score.model_copy(update=facts)})
            }
        )

    assert "Only 20 samples: each is 5.0 % of the metric" in said(scored(samples=20))
    assert "Only 8 groups: each is 12.5 % of the metric" in said(scored(groups=8))


def test_zeros_are_not_mentioned_where_there_are_none(report):
    dense = changed(report, nonzeros=report.compressed[0].parameters)
    assert "zero" not in said(dense)


def test_disagreement_with_pytorch_is_told(report):
    artifact = report.compressed[0].artifact
    wrong = ParityPoint(batch=2, length=13, max_absolute=0.4, max_relative=3.0, within=False)
    parity = artifact.parity.model_copy(update={"points": (*artifact.parity.points, wrong)})
    assert "disagrees with PyTorch" in said(changed(report, artifact=artifact.model_copy(update={"parity": parity})))


def test_a_rehearsal_is_told_before_anything_else(report):
    assert next(statements(report.model_copy(update={"quick": True}))).text.startswith("A rehearsal (--quick)")


def test_a_rounded_file_of_another_format_is_near_and_does_not_agree(report):
    artifact = report.compressed[0].artifact
    loose = artifact.parity.model_copy(update={"atol": 0.25, "rtol": 0.0})
    text = said(changed(report, artifact=artifact.model_copy(update={"parity": loose})))
    assert "The rounded file is at most" in text
    assert "(allowed: 0.25)" in text
    assert "agrees with PyTorch" not in text


def test_what_the_task_says_of_its_metric_is_told_before_the_metric(report):
    said_first = next(statements(report.model_copy(update={"remark": "No labels were used."})))
    assert (said_first.tone, said_first.text) == ("plain", "No labels were used.")


def test_integers_that_make_a_file_slower_are_told_with_what_to_do(report):
    slower = SpeedUp(ratio=0.82, interval=Interval(low=0.8, high=0.84), within_noise=False)
    text = said(rounded(report).model_copy(update={"speedups": (slower,)}))
    assert "The file is slower: 0.820x as fast" in text
    assert "Integers do not pay for this model: `rounding: {quantize_for: anywhere}`" in text
    assert "Integers do not pay" not in said(report.model_copy(update={"speedups": (slower,)}))
    assert "Integers do not pay" not in said(rounded(report))


def test_what_a_microcontroller_has_to_hold_is_told_beside_the_original(report):
    before = Emulated(
        cpu="cortex-m4", board="mps2-an386", compiler="gcc 12 -O2", flash_bytes=17608, ram_bytes=1364, stack_bytes=172,
        instructions=24319, calls=8, max_absolute=3e-8, atol=1e-5,
    )  # fmt: skip
    after = before.model_copy(update={"flash_bytes": 7204, "ram_bytes": 1452, "instructions": 23809})

    def on(measurement, board):
        return measurement.model_copy(update={"artifact": measurement.artifact.model_copy(update={"emulated": board})})

    both = {"original": on(report.original, before), "compressed": (on(report.compressed[0], after),)}
    assert (
        "On an emulated cortex-m4 the whole program takes 7,204 B of flash (17,608 before), 1,452 B of RAM "
        "(1,364 before) and 23,809 instructions a call (24,319 before)."
    ) in said(report.model_copy(update=both))
    alone = {"compressed": (on(report.compressed[0], after),)}
    assert "takes 7,204 B of flash, 1,452 B of RAM and 23,809 instructions a call." in said(
        report.model_copy(update=alone)
    )
    assert "emulated" not in said(report.model_copy(update={"original": both["original"]}))
