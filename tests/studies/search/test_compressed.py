"""Models that are kept between trials go on as models that are made again."""

import textwrap

import pytest
import torch

from compressor.studies.search.goals import Goals
from compressor.studies.search.place import Place
from compressor.studies.search.preparing import prepare
from tests.studies.search.tiny import TASK

GOALS = Goals.model_validate({"max_drop": 0.03, "trials": 7})


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    (folder / "task.py").write_text(textwrap.dedent(TASK), encoding="utf-8")
    made = []
    for name in ("one", "other"):
        (folder / name).mkdir()
        made.append(prepare(GOALS, Place(str(folder / "task.py"), folder / name)))
    return made


def half(worker, **knobs):
    space = worker.space
    least = {"units": 0.5, "units.score": "sensitivity", "batches": space.retraining.least}
    return space.canonical(space.at_rest | least | knobs)


def made_of(worker, point):
    return worker.evaluator.compressed(point, 2).state.model.state_dict()


def test_what_was_kept_gives_the_same_numbers_as_what_is_made_anew(workers):
    kept, fresh = workers
    made_of(kept, half(kept, lr=3e-3))  # the same removal before another retraining
    first, second = (made_of(worker, half(worker, lr=1e-3)) for worker in (kept, fresh))
    assert all(torch.equal(first[name], second[name]) for name in second)


def test_a_model_is_in_evaluation_mode_after_every_step(workers):
    assert not any(workers[0].evaluator.compressed(half(workers[0]), rung).state.model.training for rung in (0, 1, 2))


def test_points_that_are_only_stored_otherwise_share_a_model(workers):
    model = workers[0].evaluator.compressed(half(workers[0], precision="float16"), 2)
    assert workers[0].evaluator.compressed(half(workers[0], precision="int8"), 2) is model


def test_the_original_is_what_no_step_gives_and_stays_as_it_is(workers):
    subject = workers[0].evaluator.subject
    before = {name: item.clone() for name, item in subject.model.state_dict().items()}
    made_of(workers[0], half(workers[0]))
    assert all(torch.equal(item, before[name]) for name, item in subject.compressed().state.model.state_dict().items())


def test_the_models_that_were_used_last_are_kept_within_a_limit(workers):
    models = workers[1].evaluator.subject.models
    models.most = 1
    model = workers[1].evaluator.compressed(half(workers[1], lr=5e-3), 2)
    assert len(models._kept) == 1
    assert workers[1].evaluator.compressed(half(workers[1], lr=5e-3), 2) is model


def test_outputs_that_are_the_original_s_have_no_error(workers):
    subject = workers[0].evaluator.subject
    assert subject.outputs_error(subject.model, ()) == 0.0
    smaller = workers[0].evaluator.compressed(half(workers[0]), 0).state
    assert subject.outputs_error(smaller.model, smaller.structure) > 0.0
