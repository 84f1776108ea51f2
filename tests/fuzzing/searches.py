"""Folders of searches from anywhere: their report and frontier shown, their study opened."""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.recipe.exports import options_of
from compressor.report import Drop, Environment, GoalCost, Interval, Score, SearchPoint, SearchReport
from compressor.studies.search import known
from compressor.studies.search.estimates import estimates
from compressor.studies.search.goals import Goals
from compressor.studies.search.knobs import Knob
from compressor.studies.search.outcomes import Outcome
from compressor.studies.search.place import STUDY_FILE
from compressor.studies.search.prediction import Graphs
from compressor.studies.search.records import trails
from compressor.studies.search.storage import PENDING, Store
from compressor.studies.search.study_facts import StudyFacts
from tests.fuzzing.bytes import damaged
from tests.fuzzing.values import ESCAPE, STRANGE, spoilt
from tests.fuzzing.verdict import Case, of_command, of_function
from tests.report.sample import sample
from tests.studies.search.test_space import space as whole_space

if TYPE_CHECKING:
    import random

GOALS = Goals(max_drop=0.01, exports=(options_of("onnx"),))
KNOBS = (Knob("units"), Knob("precision", words=("float32", "int8")))


def case(draw: random.Random, folder: Path) -> Case:
    """A folder of a search, spoilt or not."""
    kinds = (_shown, _shown, _shown, _frontier, _frontier, _opened, _opened, _opened, _pending)
    return draw.choice(kinds)(draw, folder)


def _environment() -> Environment:
    return sample().environment


@cache
def report() -> str:
    """A report such as a search writes."""
    score = Score(metric="accuracy", value=0.97, interval=Interval(low=0.95, high=0.99), samples=370)
    steps = (
        {"method": "magnitude", "ratios": {"rnn": 0.5}, "score": "l2"},
        {"method": "low_rank_attention", "parameters": 0.7},
        {"method": "retrain", "epochs": 3, "lr": 0.001},
    )
    points = tuple(
        SearchPoint(
            number=number,
            rung=(0, 1, 2)[number % 3],
            origin="seed",
            drop=Drop(value=0.001 * number, interval=Interval(low=-0.01, high=0.02)),
            bytes=90_000 - 10_000 * number,
            steps=steps[: number % 4],
            precision="int8",
            on_frontier=number % 3 == 2,
            verdict="met",
        )
        for number in range(9)
    )
    return SearchReport(
        name="search",
        task="task.py",
        goals={"max_drop": 0.01, "max_bytes": 60_000},
        objective="bytes",
        function="validate",
        original=score,
        original_bytes=200_000,
        space=("units: 0 to 0.9",),
        points=points,
        chosen=5,
        best_bytes=40_000,
        best_drop=Drop(value=0.004),
        passed_over=(8,),
        costs=(GoalCost(name="drop", goal=0.01, reached=0.02, number=2),),
        seconds=100.0,
        trials={"in full": 3},
        environment=_environment(),
    ).to_json()


def _shown(draw: random.Random, folder: Path) -> Case:
    file, form = folder / "report.json", draw.choice(("table", "md", "html", "json"))

    def run() -> Any:
        return of_command("report", folder, "--format", form)

    kind = draw.choice(("good", "missed", "deep", *("spoilt",) * 6, *("damaged",) * 2))
    facts = json.loads(report())
    if kind == "missed":  # so that what goals cost is shown
        facts["chosen"] = None
    if kind == "spoilt":
        facts["chosen"] = draw.choice((5, None))
    what = "as it is"
    if kind == "deep":
        what = "deep"
        facts["goals"] = json.loads("[" * 900 + "]" * 900)
    elif kind == "spoilt":
        what = spoilt(facts, draw)
    content = json.dumps(facts).encode()
    if kind == "damaged":
        what, content = damaged(content, draw)
    file.write_bytes(content)
    expected = {"good": "accepted", "missed": "accepted", "deep": "refused"}.get(kind, "either")
    return Case(f"a report of a search {what} as {form}", expected, run)  # type: ignore[arg-type]


def _frontier(draw: random.Random, folder: Path) -> Case:
    """A frontier that is shown, or with which another search starts."""
    file, found = folder / known.FILE, known.read(draw.choice(known.names()))
    facts = json.loads(found.to_json())
    number = str(found.points[0].number)
    way = draw.choice(((), ("--json",), ("--recipe", number), None))
    kind = draw.choice(("good", *("spoilt",) * 6, *("damaged",) * 2))
    what = spoilt(facts, draw) if kind == "spoilt" else "as it is"
    content = json.dumps(facts).encode()
    if kind == "damaged":
        what, content = damaged(content, draw)
    file.write_bytes(content)

    def run() -> Any:
        if way is None:
            return of_function(lambda: known.starts(whole_space(), known.read(str(file)), 8))
        return of_command("frontiers", "show", file, *way)

    expected = "accepted" if kind == "good" else "either"
    return Case(f"a frontier {what} {'as a start' if way is None else ' '.join(('shown', *way))}", expected, run)


@cache
def _study() -> Path:
    """A study with results of several kinds, and one trial under way."""
    from types import SimpleNamespace

    folder = Path(tempfile.mkdtemp(prefix="fuzz-study-"))
    space: Any = SimpleNamespace(knobs=KNOBS, precision=lambda point: point["precision"])
    store = _store(folder)
    for number, outcome in enumerate(
        (
            Outcome(drop=Drop(value=0.002), bytes=900, weight_bytes=800, seconds=0.1),
            Outcome(drop=Drop(value=0.01), weight_bytes=700),
            Outcome(refused="nothing is cut"),
            None,
        )
    ):
        point = {"units": number / 10, "precision": "int8"}
        trial = store.begin(space, point, 0, "seed")
        if outcome is not None and trial is not None:
            store.finish(trial, outcome)
    store.note("decided", {"numbers": {"map of units": 1, "batches": 50}})
    store.note("original", {"bytes": 1000, "weight_bytes": 900, "latency_ms": None, "seconds": 1.0})
    store.note("fingerprints", {"code": {}, "model": "0", "samples": "0", "data": {}, "versions": {}})
    store.note("goals", {"key": GOALS.key()})
    store.close()
    return folder


def _store(folder: Path) -> Store:
    return Store(f"sqlite:///{folder / STUDY_FILE}", "search", folder, shared=False)


def _read(folder: Path) -> None:
    """All that a search reads before it goes on."""
    store = _store(folder)
    try:
        StudyFacts.of(store.facts())
        store.save_pending()
        points = trails(store.records())
        estimates(points, GOALS, Graphs(100.0, 0.0))
        store.give_up_all()
    finally:
        store.close()


def _opened(draw: random.Random, folder: Path) -> Case:
    """A study whose database is damaged, or whose values are."""
    path = folder / STUDY_FILE
    shutil.copyfile(_study() / STUDY_FILE, path)

    def run() -> Any:
        return of_function(lambda: _read(folder))

    kind = draw.choice(("good", "damaged", "no database", "hostile", "hostile", "values", "values", "values", "values"))
    if kind == "good":
        return Case("a study", "accepted", run)
    if kind == "damaged":
        what, content = damaged(path.read_bytes(), draw)
        path.write_bytes(content)
        return Case(f"a study with {what}", "either", run)
    if kind == "no database":
        what, content = draw.choice((("text", b"hello" * 1000), ("noise", draw.randbytes(9000))))
        path.write_bytes(content)
        return Case(f"{what} as a study", "refused", run)
    with closing(sqlite3.connect(path)) as database, database:
        what = (_hostile if kind == "hostile" else _value)(database, draw)
    return Case(f"a study with {what}", "either", run)


_HOSTILE = (
    "drop table trial_params",
    "drop table version_info",
    "update version_info set schema_version = 99",
    "update version_info set library_version = '99'",
    "update alembic_version set version_num = 'v9.9.9'",
    "update studies set study_name = 'other'",
    "delete from trial_user_attributes where key = 'rung'",
    "update trial_user_attributes set key = 'rung2' where key = 'rung'",
    "update trials set number = 7",
    "update trials set number = null",
    "update trials set state = 'RUNNING'",
    "update trials set state = 'NONE'",
    "update trials set datetime_start = 'yesterday'",
    "update trial_params set param_value = 'x'",
    "update trial_params set param_value = 9e999",
    "update trial_params set distribution_json = '{}'",
    "update trial_params set distribution_json = '" + "[" * 5000 + "'",
    "delete from trial_params",
    "delete from study_directions",
    "create trigger t after insert on trial_user_attributes begin delete from trials; end",
)


def _hostile(database: sqlite3.Connection, draw: random.Random) -> str:
    sql = draw.choice(_HOSTILE)
    database.execute(sql)
    return sql[:60]


def _value(database: sqlite3.Connection, draw: random.Random) -> str:
    """One value of the study's or a trial's attributes, spoilt."""
    table, owner = draw.choice((("study_user_attributes", "study"), ("trial_user_attributes", "trial")))
    rows = database.execute(f"select {owner}_user_attribute_id, key, value_json from {table}").fetchall()
    number, key, text = draw.choice(rows)
    value = [json.loads(text)]
    if draw.random() < 0.5 and isinstance(value[0], dict):
        what = spoilt(value[0], draw)
        new = json.dumps(value[0])
    else:
        new = draw.choice((*map(json.dumps, STRANGE), "[" * 2000, "{", "", "x"))
        what = new[:30]
    sql = f"update {table} set value_json = ? where {owner}_user_attribute_id = ?"
    database.execute(sql, (new, number))
    return f"`{key}` {what!r}"


def _pending(draw: random.Random, folder: Path) -> Case:
    """Results that a worker left beside the study."""
    shutil.copyfile(_study() / STUDY_FILE, folder / STUDY_FILE)
    (folder / PENDING).mkdir()
    outcome = Outcome(drop=Drop(value=0.01), weight_bytes=700).stored()
    name, what = draw.choice(("3.json", "3.json", "3.json", "x.json", "99.json", "-1.json", "1e9.json", "3.4.json")), ""
    if draw.random() < 0.5:
        what = spoilt(outcome, draw)
    text = draw.choice((json.dumps(outcome), json.dumps(outcome), "[" * 50_000, json.dumps(ESCAPE), ""))
    (folder / PENDING / name).write_text(text)
    return Case(f"unsaved result {name} {what} {text[:20]}", "either", lambda: of_function(lambda: _read(folder)))
