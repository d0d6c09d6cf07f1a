from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import naive
import pytest
from conftest import portion
from fakes import (
    World,
    a_study,
    at_times_written,
    attempt_at,
    memory_ledger,
    model_identity,
    outcome_of,
    random_study,
    resolved_of,
    search_through,
    uniform,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.agenda import (
    Agenda,
    Cost,
    Kind,
    Outcome,
    Request,
    Simulation,
    StudentTraining,
    TeacherTraining,
    TestScore,
    Training,
    Walk,
    case_counts,
    kind_of,
    remaining,
    sizes,
    stage_of,
)
from kdsearch.agenda.waiting import Waiting
from kdsearch.driver import Dispatcher
from kdsearch.engine import TabulatedEngine
from kdsearch.ledger import Ledger
from kdsearch.search import Candidate
from kdsearch.study import Resolved, ResolvedSplit, TestCase
from kdsearch.study import test_cases as cases_of

seeds = st.integers(0, 2**32 - 1)


# -- what a naive search of the same made-up world comes to ------------------------------------


class Expected:
    """The naive search of every case of a study, and which trainings it needed."""

    def __init__(self, resolved: Resolved, world: World) -> None:
        self._resolved = resolved
        self._world = world
        self.students: set[tuple[object, ...]] = set()
        self.further: set[tuple[object, ...]] = set()
        """What was chosen, under the seeds that no search had."""
        self._chosen: dict[TestCase, tuple[object, ...]] = {}
        """The same of each case under the first seed."""

    def grid(self, case: TestCase) -> dict[str, Any]:
        search = self._resolved.study.search
        teacher = self._resolved.study.teachers[case.teacher]
        names = search.teacher
        if teacher.t_hs:
            names = tuple(name for name in names if name in ("t_hs", "t_ll"))
        if teacher.checkpoint or teacher.student_of:
            names = ("given" if teacher.checkpoint else "winner",)
        targets = {n: v for n, v in search.axes.items() if n == "targets"}
        return targets | {
            "distance": search.distance,
            "teacher": names,
            "student_temperature": search.student_temperature,
            "alpha": search.alpha,
            "order": search.order,
            "broad": search.temperature.broad,
            "learning_rate": search.learning_rate,
            "inner": search.inner,
        }

    def score(self, case: TestCase) -> naive.Score | None:
        """The score of a student of this case; None if no teacher could be trained."""
        checkpoints = self._checkpoints(case)
        if checkpoints is None:
            return None
        student = self._model(self._resolved.study.students[case.student].model)
        data = self._data(case)

        def score(
            distance: str,
            teacher: str,
            tau_t: float,
            tau_s: float,
            alpha: float,
            rate: float,
            targets: str,
        ) -> float | None:
            checkpoint = checkpoints[teacher]
            on, written = ("train", ()) if targets == "data" else (targets, (targets,))
            if written and self._world.score("sequences", data, checkpoint, on) is None:
                return None
            if self._world.score("outputs", data, checkpoint, on) is None:
                return None
            what = ("student", data, student, checkpoint, str(distance), tau_t, tau_s, alpha)
            what += (*written, rate)
            under = [(*what, seed) for seed in self._resolved.study.student_seeds]
            self.students.update(under)
            scores = [self._world.score(*each) for each in under]
            return None if None in scores else statistics.fmean(scores)

        return score

    def choose(self, case: TestCase, decisions: list[naive.Decision]) -> None:
        """Train what the decisions chose under the seeds that the search did not have."""
        best = dict(decisions[-1].candidates)[decisions[-1].winner]
        if best is None:
            return
        grid = self.grid(case)
        values = {name: grid[name][0] for name in naive.names(grid)}
        values |= {each.parameter: each.winner for each in decisions}
        checkpoints = self._checkpoints(case)
        assert checkpoints is not None
        own = values["student_temperature"]
        if values["distance"] == "mse":
            own = None
        elif own == "tied":
            own = best.temperature
        student = self._model(self._resolved.study.students[case.student].model)
        what = ("student", self._data(case), student, checkpoints[values["teacher"]])
        what += (str(values["distance"]), best.temperature, own, values["alpha"])
        what += (*({values.get("targets", "data")} - {"data"}), best.rate)
        self.further |= {(*what, seed) for seed in self._resolved.study.further_seeds}
        self._chosen[case] = (*what, self._resolved.study.seed)

    def _checkpoints(self, case: TestCase) -> dict[str, tuple[object, ...]] | None:
        teacher = self._resolved.study.teachers[case.taught]
        if teacher.student_of:
            found = self._chosen.get(replace(case, teacher=teacher.student_of))
            return None if found is None else {"winner": found}
        if teacher.checkpoint:
            return {"given": (self._model(teacher.checkpoint), None, None)}
        if teacher.t_hs and teacher.t_ll:
            return {
                "t_hs": (self._model(teacher.t_hs), None, None),
                "t_ll": (self._model(teacher.t_ll), None, None),
            }
        assert teacher.model
        model = self._model(teacher.model)
        best: float | None = None
        chosen = None
        for rate in teacher.fine_tune.learning_rate:
            what = ("teacher", self._data(case), model, rate)
            score = self._world.score(*what)
            if score is not None and (best is None or score > best):
                best, chosen = score, (what, rate)
        if chosen is None:
            return None
        highest, lowest = self._world.epochs(*chosen[0])
        epochs = {"t_hs": highest, "t_ll": lowest, "epoch 2": 2}
        return {name: (model, chosen[1], epoch) for name, epoch in epochs.items()}

    def _model(self, name: str) -> str:
        return model_identity(
            self._resolved.models[name].digest, self._resolved.study.models[name].config
        )

    def _data(self, case: TestCase) -> str:
        return self._resolved.datasets[case.dataset].splits["train"].digest


def in_words(found: Candidate | None) -> naive.Best | None:
    """A candidate as the naive search says it."""
    if found is None or found.best is None or found.score is None:
        return None
    return naive.Best(found.score, found.best.get("temperature"), found.best.get("learning_rate"))


def assert_agrees(agenda: Agenda, world: World) -> None:
    """Every decision of `agenda` is that of the naive search, and it trained the same students."""
    expected = Expected(agenda.resolved, world)
    views = agenda.views_of(None)
    found, scores = {}, {}
    for view in views:  # in this order teachers come before the students that are teachers too
        score = scores[view.case] = expected.score(view.case)
        if score is None:
            assert view.blocked
            continue
        assert view.progress is not None
        found[view.case] = naive.traverse(expected.grid(view.case), score)
        assert [
            naive.Decision(
                decision.axis,
                tuple((c.value, in_words(c)) for c in decision.candidates),
                decision.winner.value,
            )
            for decision in view.progress.decisions
        ] == found[view.case]
        expected.choose(view.case, found[view.case])
    stable = naive.stable_values(list(found.values()))
    assert agenda.stable() == stable
    for view in views:
        score, grid = scores[view.case], expected.grid(view.case)
        if score is None:
            continue
        assert view.phase2 is not None
        values = naive.stable_choice(grid, stable)
        assert in_words(view.phase2.stable_tuned) == naive.tune(grid, score, values)
        lazy = view.phase2.lazy  # a seeded draw: any is right, if the grid has it
        drawn = {name: lazy.get(name) for name in naive.names(grid)}
        assert drawn["alpha"] == grid["alpha"][0]
        assert all(drawn[name] in grid[name] for name in ("distance", "teacher"))
        own = drawn["student_temperature"]
        assert drawn["distance"] == "mse" or own in grid["student_temperature"]
        assert in_words(view.phase2.lazy_tuned) == naive.tune(grid, score, drawn, fixed=1.0)
    trained = {
        key for view in views for key in _student_keys(agenda, view) if key in agenda.results
    }
    assert len(trained) == len(expected.students)
    further = [training for view in views for training in agenda.further(view.case)]
    assert {world.identity(training) for training in further} == expected.further
    assert {training.key for training in further} <= agenda.results.keys()


def _student_keys(agenda: Agenda, view: Any) -> set[str]:
    candidates = list(view.progress.candidates())
    if view.phase2 is not None:
        candidates += [view.phase2.stable_tuned, view.phase2.lazy_tuned]
    trials = [trial for each in candidates for trial in each.trials]
    return {training.key for trial in trials for training in agenda.trainings(view, trial)}


def random_world(seed: int) -> tuple[Resolved, World]:
    draw = random.Random(seed)
    resolved = resolved_of(at_times_written(draw, random_study(draw)))
    return resolved, random_scores(draw)


def random_scores(draw: random.Random) -> World:
    return World(
        seed=draw.randrange(2**32),
        levels=draw.choice([1, 2, 5, 10_000]),
        failing=draw.choice([0, 0, 0.05, 0.3]),
        diverging=draw.choice([0, 0, 0.05, 0.3, 0.9]),
        coinciding=draw.choice([0, 0.5, 1]),
    )


@settings(max_examples=portion(2000, 40))
@given(seed=seeds, slots=st.integers(1, 8))
def test_a_search_in_any_order_decides_as_the_naive_one(seed: int, slots: int) -> None:
    resolved, world = random_world(seed)
    ledger = memory_ledger(resolved)
    agenda = search_through(resolved, ledger, world, slots=slots, order=seed)
    assert agenda.complete
    assert_agrees(agenda, world)
    students = [o.training for o in ledger.outcomes() if isinstance(o.training, StudentTraining)]
    trained = {student.key for student in students if student.teaching is not None}
    wanted = {key for view in agenda.views() for key in _student_keys(agenda, view)}
    wanted |= {training.key for case in agenda.cases for training in agenda.further(case)}
    assert trained <= wanted


# -- invariants along the way ------------------------------------------------------------------


class Follower:
    """A watch that counts what was handed out."""

    def __init__(self) -> None:
        self.started_keys: Counter[str] = Counter()

    def started(self, request: Request) -> None:
        self.started_keys[request.training.key] += 1

    def finished(self, request: Request, outcome: Outcome) -> None: ...

    def failed(self, request: Request, attempt: object, *, for_good: bool) -> None: ...

    def tick(self) -> None: ...


@settings(max_examples=portion(50, 10))
@given(seed=seeds, slots=st.integers(1, 8))
def test_no_training_runs_twice_but_to_try_again(seed: int, slots: int) -> None:
    resolved, world = random_world(seed)
    ledger = memory_ledger(resolved)
    follower = Follower()
    TabulatedEngine(
        look_up=lambda training: world.commit(ledger, training),
        seconds=lambda training: uniform(seed, training.key),
        slots=slots,
    ).run(Dispatcher(Agenda(resolved), ledger, (follower,)))
    results = ledger.results()
    assert set(results) == set(follower.started_keys)
    for key, times in follower.started_keys.items():
        assert times == (1 if results[key] else resolved.study.tries)


def any_search(draw: random.Random, raw: dict[str, Any]) -> dict[str, Any]:
    """The study, at times with a search that compares whole choices beside its own."""
    taught = {"objective": "ce", "temperature": [1, 4], "learning_rate": [1e-5, 2e-5]}
    others = {
        "grid": {
            **taught,
            "strategy": "exhaustive",
            "teacher": ["t_hs", "t_ll"],
            "alpha": [1, 0.5],
        },
        "drawn": {**taught, "strategy": "random", "trials": 5, "alpha": [1, 0.5, 0.1]},
        "texts": {
            "objective": ["sequence"],
            "targets": ["greedy", "sample"],
            "learning_rate": [1e-5],
            "strategy": "exhaustive",
        },
        "labels": {"strategy": "exhaustive", "objective": "labels"},
    }
    if draw.random() < 0.5 or raw["erm"]:
        return raw
    own = raw.pop("search")
    return {**raw, "searches": {"own": own, **dict(draw.sample([*others.items()], 2))}}


@settings(max_examples=portion(1000, 6))
@given(seed=seeds, chance=st.randoms(use_true_random=False))
def test_the_incremental_agenda_equals_one_built_from_scratch(
    seed: int, chance: random.Random
) -> None:
    draw = random.Random(seed)
    resolved = resolved_of(any_search(draw, at_times_written(draw, random_study(draw))))
    world, ledger = random_scores(draw), memory_ledger(resolved)
    agenda = Agenda(resolved)
    while requests := agenda.requests():
        training = chance.choice(requests).training
        world.commit(ledger, training)
        results = ledger.results()
        if training.key in results:
            agenda.add(training.key, results[training.key])
        if chance.random() < 0.15:
            scratch = Agenda(resolved, results)
            assert agenda.requests() == scratch.requests()
            assert agenda.count() == len(scratch.requests())
            if chance.random() < 0.5:  # which has its views made anew
                assert agenda.views() == scratch.views()
    assert agenda.views() == Agenda(resolved, ledger.results()).views()


def test_more_may_follow_once_a_round_is_whole_else_at_each_result() -> None:
    agenda = Agenda(resolved_of(a_study(erm=True)))
    students = [r for r in agenda.requests() if r.role == "student"]
    [case] = {request.case for request in students}
    first, second = (request.training.key for request in students)
    for open_rounds, more in (([{first, second}], [False, True]), ([], [True, True])):
        waiting = Waiting([case], lambda case, role, rounds: 1.0)
        waiting.put(case, students, open_rounds)
        assert [waiting.end(first), waiting.end(second)] == [{case: each} for each in more]
        assert not list(waiting)


def test_the_trainings_that_can_run_are_counted_by_role_less_those_that_run() -> None:
    agenda = Agenda(resolved_of(a_study(erm=True)))
    [teacher, *students] = agenda.requests()
    assert agenda.count() == 3
    assert (agenda.count(["teacher"]), agenda.count(["student"])) == (1, 2)
    assert agenda.count(but=[teacher.training.key, "of another study"]) == 2
    assert agenda.count(["student"], but=[students[0].training.key]) == 1


class Stopped(BaseException):
    """The driver's process ends here."""


@settings(max_examples=portion(50, 10))
@given(seed=seeds, stops=st.lists(st.integers(1, 40), max_size=4), slots=st.integers(1, 8))
def test_where_a_search_was_stopped_and_resumed_changes_nothing(
    seed: int, stops: list[int], slots: int
) -> None:
    resolved, world = random_world(seed)
    straight = search_through(resolved, memory_ledger(resolved), world)
    ledger = memory_ledger(resolved)
    for stop in stops:
        left = stop

        def look_up(training: Any) -> None:
            nonlocal left
            world.commit(ledger, training)
            left -= 1
            if not left:
                raise Stopped

        engine = TabulatedEngine(
            look_up=look_up, seconds=lambda t: uniform(seed, t.key), slots=slots
        )
        try:
            engine.run(Dispatcher(Agenda(ledger.resolved(), ledger.results()), ledger))
        except Stopped:
            continue
    resumed = search_through(ledger.resolved(), ledger, world, slots=slots)
    assert resumed.views() == straight.views()
    assert set(resumed.results) == set(straight.results)


# -- single behaviours -------------------------------------------------------------------------


def run_to_the_end(raw: dict[str, Any], world: World) -> tuple[Agenda, Ledger]:
    resolved = resolved_of(raw)
    ledger = memory_ledger(resolved)
    return search_through(resolved, ledger, world), ledger


def two_students() -> dict[str, Any]:
    """A study of two cases: one traversal far longer than the other."""
    return a_study(
        teachers={
            "pair": {"t_hs": "tuned", "t_ll": "other"},
            "one": {"checkpoint": "tuned"},
        },
        models={
            "tuned": {"path": "/models/tuned"},
            "other": {"path": "/models/other"},
            "small": {"config": {"model_type": "bert"}},
        },
        test_cases=[{"teacher": "one"}, {"teacher": "pair"}],
    )


def two_datasets() -> dict[str, Any]:
    """A study of two cases that share nothing."""
    return a_study(
        tries=1,
        datasets={
            name: {"grammar": {"train": 4, "validation": 2, "test": 2, "seed": seed}}
            for seed, name in enumerate(["first", "second"])
        },
    )


def generations() -> dict[str, Any]:
    """The teachers of three generations."""
    later = {"second": {"student_of": "first"}, "third": {"student_of": "second"}}
    return {"teachers": {"first": a_study()["teachers"]["big"], **later}}


def test_the_case_with_the_longest_path_left_comes_first() -> None:
    agenda = Agenda(resolved_of(two_students()))
    order = [request.case.teacher for request in agenda.requests()]
    assert order[0] == "pair"  # two checkpoints to compare, though it stands last in the file
    assert order == sorted(order, key=["pair", "one"].index)


def test_a_case_near_its_end_gives_way_to_one_at_its_start() -> None:
    resolved, world = resolved_of(two_datasets()), World(seed=1)
    ledger = memory_ledger(resolved)
    agenda = Agenda(resolved)
    first = agenda.cases[0]

    def ahead() -> bool:
        decisions = [view.progress and view.progress.decisions for view in agenda.views()]
        return bool(decisions[0])

    while not ahead():
        training = next(r.training for r in agenda.requests() if r.case == first)
        world.commit(ledger, training)
        agenda.add(training.key, ledger.outcome(training.key))
    cases = [request.case for request in agenda.requests()]
    assert cases[0] == agenda.cases[1]
    assert first in cases


def test_a_case_without_a_teacher_is_blocked_and_the_others_complete() -> None:
    resolved, world = resolved_of(two_datasets()), World(seed=3)
    ledger = memory_ledger(resolved)
    agenda = Agenda(resolved)
    [teacher] = [r for r in agenda.requests() if r.case.dataset == "first"]
    ledger.write_attempt(attempt_at(teacher.training.key))
    agenda = search_through(resolved, ledger, world)
    [blocked, sound] = agenda.views()
    assert agenda.complete
    assert blocked.blocked == "no training of its teacher succeeded"
    assert blocked.phase2 is None
    assert sound.traversed
    assert sound.phase2 is not None
    assert sound.phase2.stable_tuned is not None


def test_a_teacher_without_a_lowest_loss_has_one_checkpoint_and_the_other_loses() -> None:
    resolved, world = resolved_of(a_study()), World(seed=3)
    ledger = memory_ledger(resolved)
    agenda = Agenda(resolved)
    [teacher] = agenda.requests()
    world.commit(memory_ledger(resolved), teacher.training)
    ledger.write_outcome(outcome_of(teacher.training, 0.5, lowest_loss_epoch=None))
    agenda = search_through(resolved, ledger, world)
    [view] = agenda.views()
    assert view.traversed
    assert view.progress is not None
    decision = view.progress.decisions[0]
    assert [c.score is None for c in decision.candidates] == [False, True]


def test_a_checkpoint_without_outputs_loses_to_the_other() -> None:
    raw = a_study(tries=1)
    resolved, world = resolved_of(raw), World(seed=3, coinciding=0)
    ledger = memory_ledger(resolved)
    agenda = Agenda(resolved)
    [teacher] = agenda.requests()
    world.rates[teacher.training.key] = 1e-5
    ledger.write_outcome(outcome_of(teacher.training, 0.5, best_epoch=1, lowest_loss_epoch=2))
    agenda = Agenda(resolved, ledger.results())
    first = next(r for r in agenda.requests() if r.stage == "outputs")
    ledger.write_attempt(attempt_at(first.training.key))
    [view] = search_through(resolved, ledger, world).views()
    assert view.progress is not None
    assert view.progress.decisions[0].winner.value == "t_ll"
    assert view.progress.decisions[0].candidates[0].score is None


def test_coinciding_checkpoints_are_one_training_and_the_default_is_kept() -> None:
    agenda, ledger = run_to_the_end(a_study(), World(seed=5, coinciding=1))
    [view] = agenda.views()
    assert view.coinciding
    assert view.progress is not None
    decision = view.progress.decisions[0]
    highest, lowest = decision.candidates
    assert highest.score == lowest.score
    assert decision.winner is highest
    outputs = [o for o in ledger.outcomes() if o.training.kind == "outputs"]
    assert len(outputs) == 3  # one checkpoint on three splits
    [reward] = [r for r in agenda.rewards() if r.axis == "teacher"]
    assert (reward.better, reward.worse, reward.equal) == (0, 0, 1)


def test_models_of_equal_content_share_their_trainings() -> None:
    config = {"config": {"model_type": "bert"}}
    raw = a_study(
        models={"big": config, "small": {"config": {"model_type": "bert", "n": 1}}},
        students={"one": {"model": "small"}, "same": {"model": "small"}},
    )
    alone = a_study(models=raw["models"], students={"one": {"model": "small"}})
    both, _ = run_to_the_end(raw, World(seed=8))
    single, _ = run_to_the_end(alone, World(seed=8))
    lazy = {key for key in both.results if key not in single.results}
    assert set(single.results) <= set(both.results)
    assert len(lazy) <= 2  # the two cases draw their lazy choices apart, two rates each


def test_every_learning_rate_of_a_teacher_is_trained_and_the_best_one_teaches() -> None:
    rates = [1e-5, 2e-5, 3e-5]
    raw = a_study(teachers={"big": {"model": "big", "fine_tune": {"learning_rate": rates}}})
    agenda, ledger = run_to_the_end(raw, World(seed=9))
    teachers = [o for o in ledger.outcomes() if o.training.kind == "teacher"]
    [view] = agenda.views()
    assert len(teachers) == 3
    best = max(teachers, key=lambda outcome: outcome.validation or 0)
    assert view.teacher_training == best.training


def test_the_second_phase_trains_no_more_than_stable_and_lazy() -> None:
    agenda, ledger = run_to_the_end(a_study(), World(seed=2))
    [view] = agenda.views()
    assert view.phase2 is not None
    assert view.phase2.stable_tuned
    assert view.phase2.lazy_tuned
    assert view.progress is not None
    candidates = list(view.progress.candidates())
    candidates += [view.phase2.stable_tuned, view.phase2.lazy_tuned]
    keys = {agenda.training(view, trial).key for each in candidates for trial in each.trials}
    students = {o.key for o in ledger.outcomes() if o.training.kind == "student"}
    assert students == keys


def test_the_second_phase_waits_for_every_traversal() -> None:
    resolved, world = resolved_of(two_datasets()), World(seed=4)
    ledger = memory_ledger(resolved)
    agenda = Agenda(resolved)
    while mine := [r for r in agenda.requests() if r.case.dataset == "first"]:
        world.commit(ledger, mine[0].training)
        agenda.add(mine[0].training.key, ledger.outcome(mine[0].training.key))
    [first, second] = agenda.views()
    assert first.traversed
    assert first.phase2 is None
    assert not second.traversed
    assert agenda.stable() is None


def test_test_scores_change_no_decision() -> None:
    resolved, world = resolved_of(a_study()), World(seed=6)

    class Lying(Ledger):
        def write_outcome(self, outcome: Outcome) -> bool:
            twisted = TestScore(uniform("another", outcome.key))
            return super().write_outcome(outcome.model_copy(update={"test": twisted}))

    honest = search_through(resolved, memory_ledger(resolved), world)
    plain = memory_ledger(resolved)
    lying = Lying(plain.folder, plain.disk)
    twisted = search_through(resolved, lying, world)
    assert honest.views() == twisted.views()
    scores = [
        {key: o.test for key, o in agenda.results.items() if o} for agenda in (honest, twisted)
    ]
    assert scores[0] != scores[1]


def test_a_key_covers_what_changes_a_result_and_not_a_name() -> None:
    def keys(raw: dict[str, Any]) -> set[str]:
        agenda, _ = run_to_the_end(raw, World(seed=1))
        return set(agenda.results)

    plain = a_study()
    renamed = a_study(
        students={"other": {"model": "little"}},
        models={**plain["models"], "little": plain["models"]["small"]},
        test_cases=[{"student": "other"}],
        search={**plain["search"], "distance": ["mse"]},
    )
    same = a_study(search={**plain["search"], "distance": ["mse"]})
    assert keys(renamed) == keys(same)
    assert keys(same).isdisjoint(keys({**same, "seed": 1}))
    threads = {**same, "training": {"cpu_threads": 2}}
    assert keys(same).isdisjoint(keys(threads))


def test_where_a_model_lies_is_no_part_of_a_key() -> None:
    resolved = resolved_of(two_students())
    moved = resolved.model_copy(
        update={
            "models": {
                name: model.model_copy(update={"path": f"/elsewhere/{name}"})
                for name, model in resolved.models.items()
            }
        }
    )
    here, there = (
        {request.training.key for request in Agenda(r).requests()} for r in (resolved, moved)
    )
    assert here == there


def test_a_training_survives_the_way_through_json(tmp_path: Path) -> None:
    agenda, ledger = run_to_the_end(a_study(), World(seed=2))
    for outcome in ledger.outcomes():
        known = agenda.results[outcome.key]
        assert known == outcome
        assert outcome.training.key == outcome.key


@pytest.mark.parametrize("tries", [1, 3])
def test_a_training_that_fails_is_tried_as_often_as_the_study_says(tries: int) -> None:
    resolved = resolved_of(a_study(tries=tries))
    ledger = memory_ledger(resolved)
    agenda = search_through(resolved, ledger, World(seed=1, failing=1))
    [(key, attempts)] = ledger.attempts().items()
    assert len(attempts) == tries
    assert agenda.results == {key: None}


# -- several seeds, and students without a teacher ---------------------------------------------


def by_seed(scores: dict[int, float | None]) -> Callable[[Training], float | None]:
    """Validation scores of students that depend on the seed alone."""
    return lambda t: scores[t.seed] if isinstance(t, StudentTraining) else 0.5


def run_with(raw: dict[str, Any], score: Callable[[Training], float | None]) -> Agenda:
    agenda = Agenda(resolved_of(raw))
    while requests := agenda.requests():
        training = requests[0].training
        agenda.add(training.key, outcome_of(training, score(training)))
    return agenda


def test_a_score_is_the_mean_over_the_seeds() -> None:
    agenda = run_with(a_study(seeds=[3, 4]), by_seed({3: 0.5, 4: 0.8}))
    [view] = agenda.views()
    assert view.progress is not None
    assert view.progress.winner.score == pytest.approx(0.65)


def test_the_search_decides_on_means() -> None:
    def score(training: Training) -> float | None:
        if not isinstance(training, StudentTraining):
            return 0.5
        # MSE has the best single seed, CE the better mean.
        of = {"mse": {0: 0.9, 1: 0.1}, "ce": {0: 0.6, 1: 0.6}}
        return of[training.objective.kind][training.seed]

    agenda = run_with(a_study(seeds=[0, 1]), score)
    [view] = agenda.views()
    assert view.progress is not None
    assert view.progress.winner.choice.get("distance") == "ce"


def test_a_configuration_with_a_failed_seed_has_no_score() -> None:
    agenda = run_with(a_study(seeds=[0, 1]), by_seed({0: 0.9, 1: None}))
    [view] = agenda.views()
    assert view.traversed
    assert not view.best_has_score


def test_one_teacher_of_the_first_seed_serves_all_seeds() -> None:
    _, ledger = run_to_the_end(a_study(seeds=[7, 8, 9]), World(seed=1, coinciding=1))
    teachers = [o.training for o in ledger.outcomes() if isinstance(o.training, TeacherTraining)]
    assert [teacher.seed for teacher in teachers] == [7]
    students = Counter(
        o.training.seed for o in ledger.outcomes() if isinstance(o.training, StudentTraining)
    )
    assert len(set(students.values())) == 1
    assert set(students) == {7, 8, 9}


def without_a_teacher(ledger: Ledger) -> list[StudentTraining]:
    students = [o.training for o in ledger.outcomes() if isinstance(o.training, StudentTraining)]
    return [student for student in students if student.teaching is None]


def test_students_without_a_teacher_are_trained_if_the_study_asks_for_them() -> None:
    _, ledger = run_to_the_end(a_study(erm=True, seeds=[0, 1]), World(seed=1))
    found = without_a_teacher(ledger)
    assert {(t.learning_rate, t.seed) for t in found} == set(product([1e-5, 2e-5], [0, 1]))
    _, without = run_to_the_end(a_study(seeds=[0, 1]), World(seed=1))
    assert not without_a_teacher(without)


def test_students_without_a_teacher_change_no_decision() -> None:
    asked, _ = run_to_the_end(a_study(erm=True), World(seed=2))
    plain, _ = run_to_the_end(a_study(), World(seed=2))
    assert [v.progress for v in asked.views_of(None)] == [v.progress for v in plain.views()]


def test_students_without_a_teacher_come_last() -> None:
    agenda = Agenda(resolved_of(a_study(erm=True)))
    assert [r.stage for r in agenda.requests()] == ["teacher_training", *["comparison"] * 2]


def test_what_a_case_chose_is_trained_under_each_winner_seed() -> None:
    agenda, ledger = run_to_the_end(a_study(winner_seeds=[0, 1, 2]), World(seed=1))
    [view] = agenda.views()
    assert view.chosen is not None
    chosen = agenda.training(view, view.chosen)
    students = [o.training for o in ledger.outcomes() if isinstance(o.training, StudentTraining)]
    assert {t.seed: t for t in students if t.under([0]) == (chosen,)}.keys() == {0, 1, 2}
    assert {t.key for t in students if t.seed != 0} == {t.key for t in agenda.further(view.case)}


def test_winner_seeds_change_no_decision_and_no_other_training() -> None:
    asked, _ = run_to_the_end(a_study(winner_seeds=[0, 1, 2], erm=True), World(seed=2))
    plain, _ = run_to_the_end(a_study(erm=True), World(seed=2))
    assert asked.views() == plain.views()
    further = {training.key for case in asked.cases for training in asked.further(case)}
    assert len(further) == 4  # of the student with a teacher and of the one without
    assert asked.results.keys() == plain.results.keys() | further


def test_a_case_is_finished_once_its_choice_is_trained_under_the_winner_seeds() -> None:
    agenda = Agenda(resolved_of(a_study(winner_seeds=[0, 1, 2])))
    stages = []
    while requests := agenda.requests():
        agenda.add(requests[0].training.key, outcome_of(requests[0].training, 0.5))
        [view] = agenda.views()
        stages.append(stage_of(view))
        assert view.finished == agenda.complete
    assert stages[-2:] == ["winner", "done"]


def test_where_nothing_has_a_score_the_winner_seeds_train_nothing() -> None:
    agenda = run_with(a_study(winner_seeds=[0, 1]), by_seed({0: None}))
    [view] = agenda.views()
    assert view.finished
    assert agenda.winners(view.case) == ()


def test_a_seed_that_the_search_has_too_is_trained_once() -> None:
    agenda, _ = run_to_the_end(a_study(seeds=[0, 1], winner_seeds=[0, 1, 2]), World(seed=1))
    [case] = agenda.cases
    assert [training.seed for training in agenda.winners(case)] == [0, 1, 2]
    assert [training.seed for training in agenda.further(case)] == [2]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("own", [[0], [0, 1]])
def test_what_is_said_to_be_left_holds_all_along_the_way(own: list[int], seed: int) -> None:
    world = World(seed=seed)
    resolved = resolved_of(a_study(seeds=own, winner_seeds=[0, 1, 2, 3], erm=True))
    ledger, agenda, told = memory_ledger(resolved), Agenda(resolved), []
    while requests := agenda.requests():
        views = agenda.views()
        told += [(v.case, agenda.trained(v.case), remaining(agenda, v)) for v in views]
        training = requests[0].training
        world.commit(ledger, training)
        agenda.add(training.key, ledger.outcome(training.key))
    for case, done, left in told:
        assert left.fewest <= agenda.trained(case) - done <= left.most


def test_counts_hold_with_seeds_and_without_a_teacher() -> None:
    raw = a_study(erm=True, seeds=[0, 1], winner_seeds=[0, 2, 3])
    agenda, ledger = run_to_the_end(raw, World(seed=3))
    students = [o.training for o in ledger.outcomes() if isinstance(o.training, StudentTraining)]
    for case, taught in zip(agenda.cases, (True, False), strict=True):
        own = [student for student in students if (student.teaching is not None) == taught]
        bounds = case_counts(agenda.resolved.study, case).students
        assert bounds.fewest <= len(own) <= bounds.most
        assert agenda.trained(case) == len(own)


# -- the order, and the simulation of it -----------------------------------------------------------


def took(training: Training, seconds: float) -> Outcome:
    return outcome_of(training, 0.5, cost=Cost(seconds=seconds, device="none", host="here"))


def test_before_anything_ended_the_case_of_more_rows_comes_first() -> None:
    resolved = resolved_of(two_datasets())
    second = resolved.datasets["second"]
    train = ResolvedSplit(digest="large", rows=1000)
    second = second.model_copy(update={"splits": {**second.splits, "train": train}})
    datasets = {**resolved.datasets, "second": second}
    agenda = Agenda(resolved.model_copy(update={"datasets": datasets}))
    assert [request.case.dataset for request in agenda.requests()] == ["second", "first"]


def test_the_case_whose_trainings_turn_out_to_take_longest_comes_first() -> None:
    agenda = Agenda(resolved_of(two_datasets()))
    while untrained := [r for r in agenda.requests() if not agenda.trained(r.case)]:
        training, slow = untrained[0].training, untrained[0].case.dataset == "second"
        agenda.add(training.key, took(training, 90.0 if slow else 1.0))
    assert agenda.requests()[0].case.dataset == "second"
    assert agenda.requests()[-1].case.dataset == "first"


@pytest.mark.parametrize("born_again", [False, True])
@pytest.mark.parametrize("inner", ["joint", "coordinate"])
@pytest.mark.parametrize(
    ("slots", "targets"),
    [(1, []), (3, []), (10_000, []), (1, ["data", "beam"]), (10_000, ["greedy"])],
)
def test_a_simulated_study_takes_what_the_agenda_takes_on_simulated_slots(
    slots: int, targets: list[str], inner: str, born_again: bool
) -> None:
    raw = a_study(erm=True, seeds=[0, 1], datasets=two_datasets()["datasets"])
    if born_again:
        raw |= generations()
        del raw["datasets"]["second"]
    raw["winner_seeds"] = [0, 1, 2, 3]
    raw["search"] = {**raw["search"], "inner": inner, **({"targets": targets} if targets else {})}
    resolved = resolved_of(raw)
    study = resolved.study
    names = {resolved.datasets[n].splits["train"].digest: n for n in study.datasets}

    def named(kind: Kind) -> Kind:
        return kind._replace(data=names[kind.data])

    seconds = {named(k): float(len(names[k.data] + k.role)) for k in sizes(resolved)}
    simulated = Simulation(study, slots, lambda job: seconds[job.kind], seconds).run()

    walks = {case: Walk(study, case) for case in cases_of(study)}
    ledger = memory_ledger(resolved)
    agenda = Agenda(resolved)

    def look_up(training: Training) -> None:
        score = 0.5
        if isinstance(training, StudentTraining) and training.teaching is not None:
            [trial] = {
                trial
                for case in agenda.cases
                for trial, same in agenda.students(case).items()
                if training in same
            } or {None}
            if trial is not None:
                [case] = {c for c in agenda.cases if training in agenda.students(c).get(trial, ())}
                score = walks[case].score(trial)
        duration = seconds[named(kind_of(training))]
        ledger.write_outcome(
            outcome_of(training, score, cost=Cost(seconds=duration, device="none", host="here"))
        )

    engine = TabulatedEngine(
        look_up=look_up, seconds=lambda t: seconds[named(kind_of(t))], slots=slots
    )
    engine.run(Dispatcher(agenda, ledger))
    assert simulated.trainings == len(agenda.results)
    assert simulated.busy == engine.busy
    assert simulated.makespan == pytest.approx(engine.clock, rel=0 if slots != 3 else 0.03)


def test_a_given_pair_of_one_model_is_counted_as_the_one_checkpoint_that_it_is() -> None:
    models = {**a_study()["models"], "tuned": {"path": "tuned"}}
    pair = {"pair": {"t_hs": "tuned", "t_ll": "tuned"}}
    agenda, ledger = run_to_the_end(a_study(models=models, teachers=pair), World(seed=4))
    [case] = agenda.cases
    counts = case_counts(agenda.resolved.study, case)
    assert counts.outputs.fewest == counts.outputs.most == 3
    assert counts.students.fewest <= agenda.trained(case) <= counts.students.most
    assert sum(outcome.training.kind == "outputs" for outcome in ledger.outcomes()) == 3
