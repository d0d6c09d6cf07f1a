"""A study with several searches, and what one file each adds: a loss, a strategy."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from fakes import (
    World,
    a_study,
    memory_ledger,
    outcome_of,
    paper_space,
    resolved_of,
    search_through,
)
from hypothesis import given
from hypothesis import strategies as st
from models import begin, run_study, tiny_study
from test_cli import kdsearch, refused
from torch import Tensor

from kdsearch.agenda import Agenda, StudentTraining, case_counts, left, remaining
from kdsearch.analysis import regrouped
from kdsearch.distill import run_training
from kdsearch.distill.losses import LOSSES, Units, loss_of
from kdsearch.driver import estimate
from kdsearch.errors import InputError
from kdsearch.ledger import Ledger
from kdsearch.mirror import Mirror
from kdsearch.report import check_report, write_report
from kdsearch.report.write import report_files
from kdsearch.search import (
    Bounds,
    Ce,
    Labels,
    Objective,
    Progress,
    Random,
    Scores,
    Space,
    Strategy,
)
from kdsearch.search.strategies.exhaustive import Exhaustive
from kdsearch.study import ERM, effective_settings, parse_study, space_of
from kdsearch.study import test_cases as cases_of

SEARCHES: dict[str, Any] = {
    "erm": {"strategy": "exhaustive", "objective": "labels"},
    "ls": {
        "strategy": "exhaustive",
        "objective": "label_smoothing",
        "smoothing": {"from": 0.1, "to": 0.5, "count": 3},
    },
    "kd": {
        "strategy": "exhaustive",
        "objective": "ce",
        "temperature": [1, 4],
        "alpha": [0.5, 1],
        "batch_size": [8, 16],
    },
    "greedy": {"alpha": [1, 0.5], "temperature": {"broad": [1, 4]}},
}


def several(**sections: Any) -> dict[str, Any]:
    raw = a_study(searches=SEARCHES, learning_rate=[1e-5, 2e-5], **sections)
    del raw["search"]
    return raw


def problems_of(**searches: Any) -> list[str]:
    raw = a_study(searches=searches)
    del raw["search"]
    with pytest.raises(InputError) as caught:
        parse_study(raw, place="x.yaml")
    return [str(problem) for problem in caught.value.problems]


# -- what a study may say --------------------------------------------------------------------------


def test_each_search_makes_test_cases_and_one_without_a_teacher_has_none() -> None:
    study = parse_study(several(), place="x.yaml")
    assert [str(case) for case in cases_of(study)] == [
        "sentences/big/small/kd",
        "sentences/big/small/greedy",
        "sentences/small/erm",
        "sentences/small/ls",
    ]


def test_a_range_is_evenly_spaced_values() -> None:
    study = parse_study(several(), place="x.yaml")
    [ls] = [case for case in cases_of(study) if case.search == "ls"]
    assert space_of(study, ls).values("smoothing") == (0.1, 0.3, 0.5)


def test_a_study_of_several_searches_is_read_again_as_it_was_written() -> None:
    study = parse_study(several(erm=False), place="x.yaml")
    again = parse_study(study.model_dump(mode="json"), place="x.yaml")
    assert again == study


def test_test_cases_may_name_their_searches() -> None:
    study = parse_study(several(test_cases=[{"search": ["kd", "erm"]}]), place="x.yaml")
    assert [case.search for case in cases_of(study)] == ["kd", "erm"]


def test_a_teacher_of_searches_without_one_is_refused() -> None:
    blocks = [{"search": "ls", "teacher": "big"}, {"search": ["erm", "ls"], "teacher": "big"}]
    with pytest.raises(InputError) as caught:
        parse_study(several(test_cases=[*blocks, {"search": "kd"}]), place="x.yaml")
    assert [str(problem) for problem in caught.value.problems] == [
        "x.yaml: test_cases[0].teacher: search ls has no teacher (remove it)",
        "x.yaml: test_cases[1].teacher: searches erm and ls have no teacher (remove it)",
    ]


def test_a_teacher_beside_searches_of_both_kinds_is_that_of_those_that_have_one() -> None:
    block = {"search": ["ls", "kd"], "teacher": "big"}
    study = parse_study(several(test_cases=[block]), place="x.yaml")
    assert [str(case) for case in cases_of(study)] == [
        "sentences/big/small/kd",
        "sentences/small/ls",
    ]


def test_the_studys_learning_rates_are_those_of_searches_without_their_own() -> None:
    own = {**SEARCHES, "kd": {**SEARCHES["kd"], "learning_rate": 0.5}}
    raw = {**several(), "searches": own}
    study = parse_study(raw, place="x.yaml")
    rates = {c.search: space_of(study, c).values("learning_rate") for c in cases_of(study)}
    assert rates == {"kd": (0.5,)} | dict.fromkeys(["greedy", "erm", "ls"], (1e-5, 2e-5))


def test_erm_is_short_for_an_exhaustive_search_of_labels() -> None:
    study = parse_study(a_study(erm=True), place="x.yaml")
    search = study.every_search[ERM]
    assert (search.strategy, search.distance) == ("exhaustive", (Labels.kind,))
    assert search.learning_rate == study.search.learning_rate


GRID = {"strategy": "exhaustive", "objective": "ce", "temperature": 1}
DKD = {"strategy": "exhaustive", "objective": "dkd", "temperature": 1}


@pytest.mark.parametrize(
    ("search", "problem"),
    [
        (
            {"strategy": "exhaustiv", "objective": "labels"},
            "strategy: exhaustiv is not a strategy (did you mean exhaustive?)",
        ),
        (
            {"strategy": "exhaustive", "objective": ["jsd", "gkd"], "beta": 0.5, "temperature": 1},
            "objective[1]: gkd is out of scope: its students learn from texts of their own, of "
            "which no teacher's outputs can be kept beforehand (reverse_kl and jsd on the data's "
            "texts are objectives)",
        ),
        (
            {"strategy": "exhaustive", "objective": "label"},
            "objective: label is not an objective (did you mean labels?)",
        ),
        (
            {"strategy": "exhaustive", "objective": "labels", "alpha": [1, 0.5]},
            "alpha: labels has no such parameter; remove it",
        ),
        (
            {"strategy": "exhaustive", "objective": "labels", "teacher": "t_hs"},
            "teacher: there is no teacher; remove it",
        ),
        (
            {"strategy": "exhaustive", "objective": "label_smoothing"},
            "smoothing: label_smoothing needs it: list its values",
        ),
        (
            {"strategy": "exhaustive", "objective": "label_smoothing", "smoothing": [0, 0.5]},
            "smoothing[0]: must lie between 0 and 1 (0 would be the labels alone, 1 would ignore "
            "them), not 0.0",
        ),
        (
            {"strategy": "exhaustive", "objective": "label_smoothing", "smoothing": 1},
            "smoothing: must lie between 0 and 1 (0 would be the labels alone, 1 would ignore "
            "them), not 1.0",
        ),
        (
            {"strategy": "exhaustive", "objective": "jsd", "temperature": 1, "beta": [0.5, 1]},
            "beta[1]: must lie between 0 and 1 (at 0 and at 1 the divergence is 0), not 1.0",
        ),
        (
            {**DKD, "target": -1, "non_target": 1},
            "target: must be at least 0 and finite, not -1.0",
        ),
        (
            {**DKD, "target": 0, "non_target": 0},
            "target: must be above 0 where non_target is 0, or nothing would be distilled, not 0.0",
        ),
        (
            {**GRID, "batch_size": ["many"]},
            'batch_size[0]: must be a whole number, not "many"',
        ),
        (
            {**GRID, "optimizer": "adam"},
            'optimizer: must be adamw or sgd, not "adam" (did you mean adamw?)',
        ),
        (
            {**GRID, "dropout": 1},
            "dropout: must be below 1 or own, not 1",
        ),
        (
            {**GRID, "epochs": {"from": 1, "to": 4, "count": 3}},
            "epochs: the range gives 2.5: must be a whole number",
        ),
        (
            {**GRID, "alpha": {"from": 0.001, "to": 1, "count": 1000}},
            "alpha: has 1,000 values, more than 100",
        ),
        (
            {"temperature": {"broad": {"from": 1, "to": 4, "count": 3}}},
            "temperature.broad: must be a list (list the values)",
        ),
        ({"beta": 0.5}, "beta: neither ce nor mse has such a parameter; remove it"),
        (
            {"student_temperature": -1},
            "student_temperature: expected tied (τ_s = τ_t) or a number above 0, not -1",
        ),
        (
            {"order": ["teacher", "objective"]},
            "order: must name teacher, student_temperature and objective (or distance) once each",
        ),
        (
            {**GRID, "smoothin": [0.1]},
            "smoothin: smoothin is not a key here (did you mean smoothing?)",
        ),
        ({**GRID, "smoothing": [0.1]}, "smoothing: ce has no such parameter; remove it"),
        (
            {**GRID, "temperature": {"broad": [1, 2]}},
            "temperature: exhaustive has no second round; list the values: [1, 4]",
        ),
        ({**GRID, "strategy": "random"}, "trials: random needs it"),
        ({**GRID, "inner": "coordinate"}, "inner: exhaustive has none; remove it"),
        ({**GRID, "distance": "ce"}, "objective: is another name of distance; keep one"),
        ({**GRID, "axes": {"foo": [1]}}, "foo: is not an axis"),
        (
            {**GRID, "learning_rate": [1e-5, 1e-5]},
            "learning_rate[1]: 1e-05 appears twice; keep one",
        ),
        ({**GRID, "strategy": "random", "trials": 0}, "trials: must be at least 1, not 0"),
        (
            {**GRID, "tuned": ["alhpa"]},
            "tuned[0]: alhpa is not an axis of this search that can be tuned "
            "(available: teacher, student_temperature, temperature, learning_rate)",
        ),
        (
            {
                **GRID,
                "alpha": {"from": 0.01, "to": 1, "count": 100},
                "temperature": {"from": 1, "to": 64, "count": 2000},
            },
            "has a grid of 1,400,000 trials, more than 100,000 "
            "(leave values out, or take strategy: random)",
        ),
    ],
)
def test_what_a_search_cannot_be_is_said_at_its_place(search: dict[str, Any], problem: str) -> None:
    places = (f"x.yaml: searches.one.{problem}", f"x.yaml: searches.one: {problem}")
    assert [found for found in problems_of(one=search) if found in places], problems_of(one=search)


def test_every_problem_of_a_search_is_said_at_once_and_none_for_another() -> None:
    wrong = {
        **GRID,
        "temperature": [-1, 4],
        "alpha": [7],
        "batch_size": ["many"],
        "gradient_scale": "tau",
        "epoch": [1, 2],
    }
    places = [problem.partition(" ")[2] for problem in problems_of(one=wrong)]
    expected = [
        'searches.one.batch_size[0]: must be a whole number, not "many"',
        "searches.one.temperature[0]: must be positive and finite, not -1.0",
        "searches.one.alpha[0]: must be at most 1, not 7",
        'searches.one.gradient_scale: must be none or tau_squared, not "tau"',
        "searches.one.epoch: epoch is not a key here (did you mean epochs?)",
    ]
    assert sorted(places) == sorted(expected)


@pytest.mark.parametrize(
    ("search", "problem"),
    [
        # Not: that exhaustive has no trials, that greedy has none, or that labels have no alpha.
        (
            {"strategy": "randm", "trials": 3, "objective": "ce"},
            "strategy: randm is not a strategy (did you mean random?)",
        ),
        (
            {**GRID, "objective": "cee", "smoothing": [0.1], "alpha": [1]},
            "objective: cee is not an objective (did you mean ce?)",
        ),
        # Not: that ce needs a temperature, or random its trials.
        (
            {"strategy": "exhaustive", "objective": "ce", "temprature": [1]},
            "temprature: temprature is not a key here (did you mean temperature?)",
        ),
        (
            {**GRID, "strategy": "random", "trails": 3},
            "trails: trails is not a key here (did you mean trials?)",
        ),
        # Not: that an axis which cannot be read cannot be tuned.
        (
            {**GRID, "clip": {"from": 1, "to": 2}, "tuned": ["clip"]},
            "clip.count: this key is missing",
        ),
    ],
)
def test_what_follows_from_a_problem_is_no_problem_of_its_own(
    search: dict[str, Any], problem: str
) -> None:
    assert problems_of(one=search) == [f"x.yaml: searches.one.{problem}"]


def test_the_order_of_a_strategy_without_one_is_refused_once() -> None:
    assert problems_of(one={**GRID, "order": ["teacher"]}) == [
        "x.yaml: searches.one.order: exhaustive has none; remove it"
    ]


def test_an_order_may_name_the_objective() -> None:
    order = ["objective", "teacher", "student_temperature"]
    study = parse_study(a_study(search={"objective": ["ce", "mse"], "order": order}), place="x")
    assert study.search.order == ("distance", "teacher", "student_temperature")


@pytest.mark.parametrize("name", ["temperature", "alpha", "batch_size", "learning_rate"])
def test_a_range_that_is_none_is_named_by_its_axis(name: str) -> None:
    assert problems_of(one={**GRID, name: {"from": "a", "to": 2, "count": 1, "wide": 3}}) == [
        f'x.yaml: searches.one.{name}.from: must be a number, not "a"',
        f"x.yaml: searches.one.{name}.count: must be at least 2, not 1",
        f"x.yaml: searches.one.{name}.wide: wide is not a key here (available: from, to, count)",
    ]


@pytest.mark.parametrize(
    ("strategy", "there", "absent"),
    [
        ("random", {"trials", "seed", "objective", "batch_size", "beta"}, {"inner", "order"}),
        ("exhaustive", {"objective", "epochs"}, {"trials", "inner", "order"}),
        ("greedy", {"inner", "order", "temperature"}, {"trials"}),
    ],
)
def test_the_keys_that_there_are_are_those_one_may_write(
    strategy: str, there: set[str], absent: set[str]
) -> None:
    found = problems_of(one={"strategy": strategy, "trials": 1, "objective": "ce", "xyzzy": 1})
    [listed] = [p.partition("available: ")[2][:-1] for p in found if "xyzzy" in p]
    keys = listed.split(", ")
    assert len(keys) == len({*keys})
    assert there <= {*keys}
    assert not {*keys} & (absent | {"axes", "parameters"})


def test_trials_of_a_strategy_without_them_are_refused() -> None:
    [problem] = problems_of(one={**GRID, "trials": 3})
    assert problem == "x.yaml: searches.one.trials: is not a parameter of exhaustive; remove it"


WIDE = {
    "objective": "ce",
    "temperature": {"from": 1, "to": 64, "count": 2000},
    "alpha": {"from": 0.01, "to": 1, "count": 100},
}


def test_random_draws_from_a_grid_that_is_too_large_to_train() -> None:
    raw = {**several(), "searches": {"wide": {**WIDE, "strategy": "random", "trials": 9}}}
    agenda = walked(raw)
    [view] = agenda.views()
    assert view.space.size == 2000 * 100 * 2
    drawn = view.progress.winner, *view.progress.candidates()
    assert all(view.space.includes(c.choice, t) for c in drawn for t in c.trials)
    assert agenda.trained(view.case) == 9
    [counted] = [case_counts(agenda.resolved.study, case).students for case in agenda.cases]
    assert (counted.fewest, counted.most) == (9, 9)


def test_what_is_refused_in_a_large_grid_is_so_before_it_is_drawn_from() -> None:
    wide = {**WIDE, "strategy": "random", "trials": 9}
    assert problems_of(one={**wide, "temperature": {"from": -1, "to": 64, "count": 2000}}) == [
        "x.yaml: searches.one.temperature: must be positive and finite, not -1.0"
    ]


@pytest.mark.parametrize(
    ("search", "words"),
    [
        (
            {**GRID, "strategy": "random", "trials": 8},
            "asks for 8 trials of a grid that has 7 (ask for fewer, or take strategy: exhaustive)",
        ),
        (
            {**WIDE, "strategy": "random", "trials": 200_000},
            "asks for 200,000 trials, more than 100,000 (ask for fewer)",
        ),
    ],
)
def test_more_trials_than_there_can_be_are_refused(search: dict[str, Any], words: str) -> None:
    assert problems_of(one=search) == [f"x.yaml: searches.one: {words}"]


def test_momentum_is_no_axis_beside_an_optimizer_without_it() -> None:
    grid = {"strategy": "exhaustive", "objective": "labels", "momentum": [0.9, 0.5]}
    [problem] = problems_of(one={**grid, "optimizer": ["adamw", "sgd"]})
    assert problem.startswith(
        "x.yaml: searches.one.momentum: not every optimizer here has momentum"
    )


def test_search_and_searches_exclude_each_other() -> None:
    raw = a_study(searches={"kd": {"alpha": 1}})
    with pytest.raises(
        InputError, match=r"search: search and searches exclude each other \(keep one\)"
    ):
        parse_study(raw, place="x.yaml")


@pytest.mark.parametrize("search", [{}, {"strategy": "greedy"}])
def test_a_search_that_says_nothing_new_is_refused_beside_searches_too(search: Any) -> None:
    with pytest.raises(InputError, match="search: search and searches exclude each other"):
        parse_study({**several(), "search": search}, place="x.yaml")


@pytest.mark.parametrize(
    ("raw", "which"),
    [
        ({**several(erm=True), "searches": {"base": SEARCHES["erm"]}}, "searches.base"),
        (a_study(erm=True, search={"objective": "labels"}), "search"),
    ],
)
def test_a_search_of_labels_beside_erm_is_refused(raw: dict[str, Any], which: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_study(raw, place="x.yaml")
    [problem] = caught.value.problems
    assert str(problem) == (
        f"x.yaml: erm: is short for a search of the labels alone, and {which} is one already "
        "(keep one)"
    )


def test_two_searches_called_erm_are_refused() -> None:
    raw = several(erm=True)
    with pytest.raises(
        InputError, match="erm is short for a search called erm, which is there already"
    ):
        parse_study(raw, place="x.yaml")


def test_a_decaying_schedule_makes_epochs_an_ordinary_axis() -> None:
    raw = several(training={"schedule": "linear"})
    raw["searches"] = {"kd": {**SEARCHES["kd"], "epochs": [1, 2]}}
    study = parse_study(raw, place="x.yaml")
    [case] = cases_of(study)
    assert case_counts(study, case).students.most == 2 * 2 * 2 * 2 * 2


@pytest.mark.parametrize("epochs", [[1, 2, 3], [1, 3], 4, {"from": 1, "to": 9, "count": 5}])
def test_at_a_constant_rate_one_training_stands_for_every_number_of_epochs(
    epochs: Any,
) -> None:
    raw = {**several(), "searches": {"kd": {**SEARCHES["kd"], "epochs": epochs}}}
    study = parse_study(raw, place="x.yaml")
    [case] = cases_of(study)
    settings = effective_settings(study, case, "student")
    longest = epochs["to"] if isinstance(epochs, dict) else np.max(epochs)
    assert (settings.epochs, settings.stops) == (longest, None)
    assert case_counts(study, case).students.most == 2 * 2 * 2 * 2


# -- how they are walked ---------------------------------------------------------------------------


def walked(raw: dict[str, Any]) -> Agenda:
    resolved = resolved_of(raw)
    return search_through(resolved, memory_ledger(resolved), World(seed=4))


def test_every_search_of_a_study_ends_and_trains_what_was_counted() -> None:
    agenda = walked(several())
    assert agenda.complete
    for view in agenda.views():
        bounds = case_counts(agenda.resolved.study, view.case).students
        assert bounds.fewest <= agenda.trained(view.case) <= bounds.most
        assert view.finished


def test_the_tables_of_a_search_that_the_study_has_no_more_go(tmp_path: Path) -> None:
    greedy = SEARCHES["greedy"]
    two = {**several(), "searches": {"one": greedy, "two": {**greedy, "inner": "coordinate"}}}
    ledger = Ledger(tmp_path / "study")
    ledger.prepare()
    for raw in (two, {**two, "searches": {"one": greedy}}):
        resolved = resolved_of(raw)
        ledger.rewrite_resolved(resolved)
        agenda = search_through(resolved, ledger, World(seed=4))
        write_report(ledger, agenda)
        tables = {path.name for path in (tmp_path / "study" / "report" / "tables").iterdir()}
        assert ("stable_2.csv" in tables) == (raw is two)
        assert check_report(ledger, agenda) == ([], [])


spaces = st.builds(
    paper_space,
    learning_rate=st.sampled_from([(1e-5,), (1e-5, 2e-5, 3e-5)]),
    temperature=st.sampled_from([(1.0, 4.0), (1.0, 2.0, 8.0)]),
    alpha=st.sampled_from([(1.0,), (1.0, 0.5, 0.25)]),
    order=st.permutations(["teacher", "student_temperature", "distance"]).map(tuple),
)


@given(space=spaces, tuned=st.sets(st.sampled_from(["temperature", "learning_rate", "alpha"])))
def test_a_point_is_found_without_those_before_it(space: Space, tuned: set[str]) -> None:
    space = regrouped(space, tuned)
    every = [(choice, trial) for choice in space.choices() for trial in space.trials(choice)]
    assert [space.point(index) for index in range(space.size)] == every
    with pytest.raises(IndexError):
        space.point(space.size)


def test_what_is_drawn_from_a_grid_stays_the_same() -> None:
    space = parse_study(several(), place="x.yaml").every_search["kd"].space()
    names = ("temperature", "alpha", "batch_size", "learning_rate")
    drawn = {
        seed: [tuple(map(t.get, names)) for t in Random(trials=3, seed=seed)(space, {}).wanted]
        for seed in (0, 7)
    }
    assert drawn == {
        0: [(4, 0.5, 16, 1e-5), (4, 1, 16, 2e-5), (1, 1, 16, 1e-5)],
        7: [(4, 1, 8, 1e-5), (1, 1, 8, 1e-5), (1, 1, 16, 1e-5)],
    }


def test_what_distillation_brings_has_the_rows_of_each_search_under_its_name() -> None:
    greedy = SEARCHES["greedy"]
    two = {"one": greedy, "two": {**greedy, "alpha": [0.5, 1]}}
    agenda = walked({**several(erm=True), "searches": two})
    report = report_files(memory_ledger(agenda.resolved), agenda)["report/report.md"]
    for name in two:
        brings = report.partition(f"## What distillation brings: {name}\n")[2].partition("\n## ")[0]
        rows = [line.split(" | ")[0] for line in brings.splitlines() if line.startswith("| ")]
        case = f"| sentences/big/small/{name}"
        above = ["| gain, % (higher is better)", "| :--", "| chosen over ERM", "| stable over ERM"]
        assert rows == [*above, "| test case", "| :--", case]


def test_a_student_whose_temperatures_are_one_is_shown_as_tied() -> None:
    tied = Ce(temperature=4, student_temperature="tied", alpha=0.5)
    assert str(tied) == str(Ce(temperature=4, student_temperature=4, alpha=0.5))
    assert str(tied) == "CE τ_t=4 τ_s=τ_t α=0.5"
    assert str(Ce(temperature=4, student_temperature=1, alpha=1)) == "CE τ_t=4 τ_s=1 α=1"


def plan(tmp_path: Path, **searches: Any) -> tuple[dict[str, int], str]:
    """The students of a study that are planned, and what else is said of them."""
    raw = {**several(), "searches": searches}
    (tmp_path / "study.yaml").write_text(json.dumps(raw))
    lines = kdsearch("plan", tmp_path / "study.yaml").out.splitlines()
    place = next(i for i, line in enumerate(lines) if line.startswith("students in all"))
    found = json.loads(kdsearch("plan", tmp_path / "study.yaml", "--json").out)
    return found["students"], " ".join(lines[place + 1 :])


def test_searches_that_may_share_trainings_have_a_sum_that_is_said_to_be_one(
    tmp_path: Path,
) -> None:
    alone = {**GRID, "alpha": [1, 0.5]}
    students, said = plan(tmp_path, a=alone, b={**alone, "alpha": [1]})
    assert students == {"fewest": 4, "most": 6}
    assert "a training that searches share is counted for each of them" in said


def test_what_two_searches_ask_for_is_left_once() -> None:
    twice = {"one": GRID, "other": {**GRID, "alpha": [1, 0.5]}}
    agenda = Agenda(resolved_of({**several(), "searches": twice}))
    while others := [r.training for r in agenda.requests() if r.training.kind != "student"]:
        agenda.add(others[0].key, outcome_of(others[0], 0.5))
    students = len(agenda.requests())
    assert sum(remaining(agenda, view).most for view in agenda.views()) > students
    assert estimate(agenda, 1).left == Bounds(fewest=students, most=students)


@pytest.mark.parametrize("order", range(3))
def test_what_is_left_of_searches_that_share_is_within_its_bounds_at_any_time(order: int) -> None:
    grid = {"strategy": "exhaustive", "objective": "ce", "temperature": [1, 4], "alpha": [0.5, 1]}
    searches = {"kd": grid, "greedy": SEARCHES["greedy"], "erm": SEARCHES["erm"]}
    resolved = resolved_of({**several(), "searches": searches})
    end = search_through(resolved, memory_ledger(resolved), World(seed=order))
    draw, agenda, before = random.Random(order), Agenda(resolved), math.inf
    while not agenda.complete:
        bounds, to_come = left(agenda), len(end.results) - len(agenda.results)
        assert bounds.fewest <= to_come <= bounds.most <= before
        before = bounds.most
        key = draw.choice(agenda.requests()).training.key
        agenda.add(key, end.results[key])
    assert left(agenda) == Bounds(fewest=0, most=0)


def test_searches_without_an_objective_in_common_are_summed_up(tmp_path: Path) -> None:
    students, said = plan(tmp_path, erm=SEARCHES["erm"], ls=SEARCHES["ls"])
    assert students == {"fewest": 8, "most": 8}
    assert "counted for each" not in said


def test_students_without_a_teacher_wait_for_none() -> None:
    agenda = Agenda(resolved_of(several()))
    wanted = {str(request.case): request.stage for request in agenda.requests()}
    assert wanted["sentences/small/erm"] == wanted["sentences/small/ls"] == "comparison"


def test_a_large_grid_that_is_not_looked_through_at_each_result_is_decided_all_the_same() -> None:
    wide = {**SEARCHES["kd"], "temperature": {"from": 1, "to": 30, "count": 30}, "alpha": 1}
    raw = {**several(seeds=[0, 1]), "searches": {"wide": {**wide, "batch_size": [8, 16, 32, 64]}}}
    resolved, world = resolved_of(raw), World(seed=4, diverging=0.1)
    ledger = memory_ledger(resolved)
    agenda = search_through(resolved, ledger, world, slots=3)
    assert agenda.complete
    [view] = agenda.views()
    assert agenda.trained(view.case) == 30 * 4 * 2 * 2
    [again] = Agenda(resolved, agenda.results).views()
    assert view.progress == again.progress
    scores = [trial for choice in view.space.choices() for trial in view.space.trials(choice)]
    best = max(agenda.scores(view)[trial] or 0.0 for trial in scores)
    assert view.progress.winner.score == best


def test_searches_share_the_trainings_that_they_have_in_common() -> None:
    twice = {"a": SEARCHES["kd"], "b": {**SEARCHES["kd"], "alpha": [1]}}
    agenda = walked({**several(), "searches": twice})
    [a, b] = ({t.key for s in agenda.students(c).values() for t in s} for c in agenda.cases)
    assert b < a


def test_a_training_that_searches_share_is_one_of_those_that_are_done() -> None:
    twice = {"a": SEARCHES["kd"], "b": {**SEARCHES["kd"], "alpha": [1]}}
    agenda = walked({**several(), "searches": twice})
    a, b = agenda.cases
    assert (agenda.trained(a), agenda.trained(b)) == (16, 8)
    assert estimate(agenda, 1).done == 16


def test_of_several_cases_only_one_and_its_erm_twin_are_told_apart(tmp_path: Path) -> None:
    kd = SEARCHES["kd"]
    study = {**several(), "searches": {"a": SEARCHES["ls"], "b": kd, "c": SEARCHES["erm"]}}
    in_folder(tmp_path / "run", study)
    there = "available: sentences/big/small/b, sentences/small/a, sentences/small/c"
    for part, words in (("small", "small matches 3 test cases"), ("/", '"/" names no test case')):
        found = kdsearch("export", tmp_path / "run", part, "--to", tmp_path / "student")
        refused(found, words, there)
    in_folder(tmp_path / "two", {**study, "searches": {"a": SEARCHES["ls"], "b": kd}})
    found = kdsearch("export", tmp_path / "two", "small", "--to", tmp_path / "student")
    refused(found, "small matches 2 test cases")


def test_the_axis_that_comes_last_is_voted_on_unless_it_is_alpha() -> None:
    raw = a_study(
        search={
            "objective": "label_smoothing",
            "smoothing": [0.1, 0.3],
            "learning_rate": [1e-5],
            "batch_size": [8, 16],
        }
    )
    agenda = walked(raw)
    assert {reward.axis for reward in agenda.rewards()} == {"smoothing", "batch_size"}


def test_an_axis_that_one_case_lacks_has_the_rewards_of_the_others() -> None:
    students = {
        "nested": {"model": "small"},
        "linear": {"model": "small", "training": {"schedule": "linear"}},
    }
    raw = a_study(students=students)
    raw["search"] = {**raw["search"], "epochs": [1, 3]}
    agenda = walked(raw)
    assert agenda.complete
    [reward] = [reward for reward in agenda.rewards() if reward.axis == "epochs"]
    assert reward.better + reward.worse + reward.equal == 1


def test_checkpoints_that_only_some_searches_ask_for_are_counted_once_for_all() -> None:
    kd = SEARCHES["kd"]
    searches = {"a": {**kd, "teacher": ["t_hs"]}, "b": {**kd, "teacher": ["t_hs", "t_ll"]}}
    for order in (["a", "b"], ["b", "a"]):
        raw = {**several(), "searches": {name: searches[name] for name in order}}
        study = parse_study(raw, place="x.yaml")
        assert {case_counts(study, case).outputs.most for case in cases_of(study)} == {6}


def in_folder(folder: Path, raw: dict[str, Any]) -> Agenda:
    """A study that was searched through, in a folder."""
    resolved, ledger = resolved_of(raw), Ledger(folder)
    ledger.prepare()
    ledger.write_resolved(resolved)
    return search_through(resolved, ledger, World(seed=4))


def test_what_a_tuned_axis_came_to_is_shown_wherever_the_choice_is(tmp_path: Path) -> None:
    kd = {**SEARCHES["kd"], "tuned": ["teacher", "learning_rate", "optimizer"], "batch_size": 32}
    kd["optimizer"] = ["adamw", "sgd"]
    agenda = in_folder(tmp_path / "run", {**several(), "searches": {"kd": kd}})
    [view] = agenda.views()
    best = view.progress.winner.best
    assert best is not None
    tuned = f"teacher={best.checkpoint} optimizer={best.get('optimizer')}"
    words = f"{view.progress.winner.choice} {tuned}"
    assert tuned in " ".join(kdsearch("explain", tmp_path / "run").out.split())
    assert kdsearch("report", tmp_path / "run").code == 0
    report = (tmp_path / "run" / "report" / "report.md").read_text()
    chosen = report.partition("## What each search chose")[2].partition("\n## ")[0]
    case = report.partition("## Test cases")[2]
    for text in (chosen, case, (tmp_path / "run" / "report" / "report.html").read_text()):
        assert words in text.replace("\\", "")


def test_a_report_explains_what_it_has(tmp_path: Path) -> None:
    exhaustive = {"kd": SEARCHES["kd"], "ls": SEARCHES["ls"]}
    in_folder(tmp_path / "run", {**several(erm=True), "searches": exhaustive})
    assert kdsearch("report", tmp_path / "run").code == 0
    report = (tmp_path / "run" / "report" / "report.md").read_text()
    how = report.partition("## How to read this")[2].partition("\n## ")[0]
    assert "erm: ERM; the strategy is exhaustive." in how
    for words in ("Table 3", "decile", "Figure", "39", "Wilcoxon", "sign test"):
        assert words not in how
    assert "traversal" not in report
    assert " 0 times" not in report + (tmp_path / "run" / "report" / "report.html").read_text()


def test_what_a_greedy_search_tunes_is_listed_in_words() -> None:
    tuned = ["temperature", "learning_rate", "optimizer"]
    search = {**SEARCHES["greedy"], "tuned": tuned, "optimizer": ["adamw", "sgd"]}
    agenda = walked({**several(), "searches": {"greedy": search}})
    report = report_files(memory_ledger(agenda.resolved), agenda)["report/report.md"]
    assert "with the teacher’s temperature (τ_t), the learning rate and the optimizer " in report
    assert "; the optimizer, the learning rate and τ_t were tuned by" in report


# -- one file each ---------------------------------------------------------------------------------


@pytest.fixture
def added() -> Iterator[None]:
    """A loss with two parameters of its own, and a strategy, as a file each would add them."""

    @dataclass(frozen=True, kw_only=True)
    class Margin(Objective, kind="margin"):
        """Squared hinge of the label's lead, and how far the teacher's probabilities count."""

        width: float
        share: float = 0.0

        def __post_init__(self) -> None:
            if self.width <= 0:
                raise ValueError("width is above 0")

    @loss_of(Margin)
    def margin(objective: Margin, units: Units) -> Tensor:
        own_N = units.student.gather(1, units.labels[:, None]).squeeze(1)
        lead_N = own_N - units.student.mean(dim=1)
        near = (units.student.softmax(1) - units.teacher.softmax(1)).square().mean()
        return torch.relu(objective.width - lead_N).square().mean() + objective.share * near

    @dataclass(frozen=True, kw_only=True)
    class Half(Strategy, name="half"):
        """Every second value of each axis, exhaustively."""

        step: int = 2

        def __call__(self, space: Space, scores: Scores) -> Progress:
            axes = (
                tuple(type(axis)(name=axis.name, values=axis.values[:: self.step]) for axis in some)
                for some in (space.compared, space.tuned)
            )
            return Exhaustive()(
                Space(**dict(zip(("compared", "tuned"), axes, strict=True))), scores
            )

    yield
    del Objective.kinds["margin"], LOSSES[Margin], Strategy.named["half"]


@pytest.mark.usefixtures("added")
def test_a_loss_and_a_strategy_of_ones_own_appear_everywhere(tmp_path: Path) -> None:
    raw = tiny_study(
        searches={
            "own": {
                "strategy": "half",
                "objective": "margin",
                "width": [1, 2, 3],
                "share": [0.5],
                "batch_size": [8],
            }
        },
        learning_rate=[1e-2],
    )
    del raw["search"]
    (tmp_path / "own.yaml").write_text(json.dumps(raw))
    assert "width is above 0" in str(kdsearch("validate", edited(tmp_path, raw, width=[0])).err)
    plan = json.loads(kdsearch("plan", tmp_path / "own.yaml", "--json").out)
    assert plan["students"] == {"fewest": 2, "most": 2}  # widths 1 and 3

    folder = tmp_path / "run"
    ledger, agenda = begin(folder, raw)
    run_study(ledger, agenda, run_training)
    assert agenda.complete
    students = [o.training for o in ledger.outcomes() if isinstance(o.training, StudentTraining)]
    assert {t.objective.parameters["width"] for t in students} == {1.0, 3.0}

    assert kdsearch("report", folder).code == 0
    report = json.loads((folder / "report" / "report.json").read_text())
    winner = report["cases"][0]["winner"]["choice"]
    assert winner["width"] in (1.0, 3.0)
    assert winner["share"] == 0.5
    explained = kdsearch("explain", folder).out
    assert "width=1" in explained
    assert "width=3" in explained
    assert kdsearch("verify", folder).code == 0
    url = f"sqlite:///{tmp_path / 'mirror.db'}"
    Mirror(url).update(Agenda(ledger.resolved(), ledger.results()), Ledger(folder))
    trials = optuna.load_study(study_name="tiny/sentences/big/small/own", storage=url).trials
    assert {trial.params["width"] for trial in trials} == {1.0, 3.0}
    exported = kdsearch("export", folder, "own", "--to", tmp_path / "student").out
    assert f"batch_size=8 share=0.5 width={winner['width']:g} lr=0.01" in exported
    card = (tmp_path / "student" / "README.md").read_text()
    assert "| width | " in card


def edited(folder: Path, raw: dict[str, Any], **axes: Any) -> Path:
    other = {**raw, "searches": {"own": {**raw["searches"]["own"], **axes}}}
    (folder / "edited.yaml").write_text(json.dumps(other))
    return folder / "edited.yaml"
