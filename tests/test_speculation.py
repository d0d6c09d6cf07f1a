from __future__ import annotations

import random
import time
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from conftest import portion
from fakes import (
    SMALL_GRID,
    World,
    a_study,
    at_times_written,
    attempt_at,
    made_up_training,
    memory_ledger,
    outcome_of,
    random_study,
    resolved_of,
    search_through,
    uniform,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.agenda import (
    AHEAD,
    Agenda,
    Cost,
    Outcome,
    Request,
    Speculation,
    StudentTraining,
    Training,
    asked,
    settled,
    spare,
    unneeded,
)
from kdsearch.analysis import analyse
from kdsearch.driver import Deadline, Dispatcher
from kdsearch.driver.garbage import EARLIER, SPARE, garbage
from kdsearch.driver.keep import superseded
from kdsearch.engine import TabulatedEngine, Worker
from kdsearch.engine.ray_tune import RayTuneEngine
from kdsearch.engine.ray_tune.cluster import Cluster
from kdsearch.ledger import Ledger
from kdsearch.report.document import document
from kdsearch.search import (
    Axis,
    Checkpoint,
    Exhaustive,
    Greedy,
    Inner,
    Random,
    Space,
    Strategy,
    Trial,
    ValidationScore,
    ahead,
    local_temperatures,
)
from kdsearch.study import TestCase

seeds = st.integers(0, 2**32 - 1)
BROAD = (1, 4, 16)


def a_space(inner: Inner = Inner.JOINT) -> Space:
    return Space(
        compared=(
            Axis(name="distance", values=("ce", "mse")),
            Axis(name="teacher", values=(Checkpoint.HIGHEST_SCORE, Checkpoint.LOWEST_LOSS)),
            Axis(name="student_temperature", values=("tied",)),
            Axis(name="alpha", values=(1, 0.5)),
        ),
        tuned=(
            Axis(name="temperature", values=BROAD),
            Axis(name="learning_rate", values=(1e-5,)),
        ),
        refined="temperature",
        inner=inner,
    )


# -- what a walk may want next -------------------------------------------------------------------


def test_ahead_of_the_broad_temperatures_are_those_around_each_of_them() -> None:
    found = list(ahead(Greedy(), a_space(), {}, 0))
    there = {trial.get("temperature") for trial in found if trial.get("alpha") == 1}
    assert there >= {t for best in BROAD for t in local_temperatures(BROAD, best)}


@settings(max_examples=portion(200, 20))
@given(
    seed=seeds,
    walk=st.sampled_from([Greedy(), Exhaustive(), Random(trials=5)]),
    inner=st.sampled_from(list(Inner)),
)
def test_what_a_walk_wants_after_any_one_answer_was_ahead_of_it(
    seed: int, walk: Strategy, inner: Inner
) -> None:
    """An answer: one of what it lacks is better than all before, or none of it is."""
    draw, space = random.Random(seed), a_space(inner)
    scores: dict[Trial, ValidationScore | None] = {}
    while wanted := tuple(walk(space, scores).wanted):
        found = list(ahead(walk, space, scores, len(scores)))
        assert len(found) == len(set(found))
        assert scores.keys().isdisjoint(found)
        assert set(wanted).isdisjoint(found)
        few = len(wanted) <= 10  # of more answers not every one is looked at
        best = draw.choice([*wanted, None] if scores else wanted)
        scores |= dict.fromkeys(wanted, ValidationScore(0.0))
        if best is not None:
            scores[best] = ValidationScore(float(len(scores)))
        assert not few or found or walk(space, scores).finished
        if few:
            assert set(walk(space, scores).wanted) <= set(found)


def test_the_likelier_comes_first_which_is_that_what_is_held_stays_once_much_is_known() -> None:
    space, scores = a_space(), dict[Trial, ValidationScore | None]()
    while Greedy()(space, scores).pending.axis != "teacher":  # type: ignore[union-attr]
        # CE, whose first trial is the best.
        scores |= {t: ValidationScore(-len(scores)) for t in Greedy()(space, scores).wanted}
    lacked = Greedy()(space, scores).wanted
    stays = Greedy()(space, scores | dict.fromkeys(lacked, ValidationScore(-1e9)))
    found = list(ahead(Greedy(), space, scores, len(scores)))
    first = set(found[: len(stays.wanted)])
    assert first == set(stays.wanted)
    assert len(found) > len(first)


def test_nothing_is_ahead_of_a_walk_of_a_single_round() -> None:
    assert list(ahead(Random(trials=5), a_space(), {}, 0)) == []


# -- what slots that would idle are given ---------------------------------------------------------


class Ended:
    """A watch that keeps what ended, and how much ran ahead."""

    def __init__(self) -> None:
        self.started_ahead: dict[str, TestCase] = {}
        self.times: Counter[str] = Counter()

    def started(self, request: Request) -> None:
        self.times[request.training.key] += 1
        if request.stage == AHEAD:
            self.started_ahead[request.training.key] = request.case

    def finished(self, request: Request, outcome: Outcome) -> None: ...

    def failed(self, request: Request, attempt: object, *, for_good: bool) -> None: ...

    def tick(self) -> None: ...


@dataclass
class Speculated:
    """A study that was run to its end, ahead of its decisions where slots would have idled."""

    agenda: Agenda
    ledger: Ledger
    watch: Ended
    clock: float


def speculated(agenda: Agenda, world: World, *, slots: int, order: int = 0) -> Speculated:
    ledger, watch = memory_ledger(agenda.resolved), Ended()
    engine = TabulatedEngine(
        look_up=lambda training: world.commit(ledger, training),
        seconds=lambda training: uniform(order, training.key),
        slots=slots,
    )
    engine.run(Dispatcher(agenda, ledger, (watch,), speculation=Speculation(agenda)))
    return Speculated(agenda, ledger, watch, engine.clock)


@settings(max_examples=portion(2000, 8), deadline=None)
@given(seed=seeds, slots=st.integers(1, 40))
def test_no_decision_and_no_figure_depends_on_what_ran_ahead(seed: int, slots: int) -> None:
    draw = random.Random(seed)
    resolved = resolved_of(at_times_written(draw, random_study(draw)))
    world = World(
        seed=seed,
        levels=draw.choice([1, 2, 5, 10_000]),
        failing=draw.choice([0, 0, 0.05, 0.3]),
        diverging=draw.choice([0, 0, 0.05, 0.3, 0.9]),
        coinciding=draw.choice([0, 0.5, 1]),
    )
    plain = search_through(resolved, memory_ledger(resolved), world, slots=slots, order=seed)
    found = speculated(Agenda(resolved), world, slots=slots, order=seed)
    agenda = found.agenda
    assert agenda.complete
    assert agenda.views() == plain.views()
    assert asked(agenda) == asked(plain) >= plain.results.keys()
    figures = analyse(plain)
    for resumed in (agenda, Agenda(resolved, found.ledger.results(resolved.study.tries))):
        assert resumed.views() == plain.views()
        same = analyse(resumed)
        assert replace(same, beside=figures.beside) == figures
        outcomes = {key for key, result in resumed.results.items() if result is not None}
        assert spare(resumed) == outcomes - plain.results.keys()
        assert same.beside.trainings == len(spare(resumed))
    for key, times in found.watch.times.items():
        assert times <= resolved.study.tries
        assert times == 1 or agenda.results.get(key) is None


def a_world() -> World:
    return World(seed=3, levels=10_000)


def test_on_many_slots_a_search_is_shorter_and_trains_more() -> None:
    resolved, world = resolved_of(a_study()), a_world()
    ledger = memory_ledger(resolved)
    plain = TabulatedEngine(
        look_up=lambda training: world.commit(ledger, training),
        seconds=lambda training: uniform(0, training.key),
        slots=64,
    )
    plain.run(Dispatcher(Agenda(resolved), ledger))
    found = speculated(Agenda(resolved), a_world(), slots=64)
    assert found.clock < plain.clock
    assert spare(found.agenda)


class Handing:
    """A dispatcher that may hand out what is ahead, and what was taken from it."""

    def __init__(self, **sections: Any) -> None:
        resolved = resolved_of(a_study(**sections))
        self.agenda, self.ledger = Agenda(resolved), memory_ledger(resolved)
        self.speculation = Speculation(self.agenda)
        self.queue = Dispatcher(self.agenda, self.ledger, speculation=self.speculation)

    def end(self, training: Training, score: float = 0.5) -> None:
        self.ledger.write_outcome(outcome_of(training, score, lowest_loss_epoch=1))
        self.queue.done(training.key)

    def needed(self) -> list[Request]:
        """Everything that could start now and is asked for, in hand."""
        taken: list[Request] = []
        while self.queue.wanted > len(self.queue.running) - len(self.queue.ahead):
            taken += self.queue.take()
        return taken

    def students(self) -> list[Request]:
        """Train what comes before the students, and take these."""
        taken: list[Request] = []
        while not taken:
            for request in self.needed():
                if request.role == "student":
                    taken.append(request)
                else:
                    self.end(request.training)
        return [*taken, *self.needed()]

    def ahead(self) -> Request:
        [request] = self.queue.take()
        assert request.stage == AHEAD
        return request


def test_nothing_runs_ahead_before_what_students_learn_from_is_there() -> None:
    handing = Handing()
    assert handing.needed()
    assert handing.queue.take() == ()
    assert list(handing.speculation) == []


def test_what_runs_ahead_is_taken_after_all_that_is_asked_for_and_is_not_wanted() -> None:
    handing = Handing()
    taken = handing.students()
    wanted = handing.queue.wanted
    request = handing.ahead()
    assert request.training.key not in {each.training.key for each in taken}
    assert handing.queue.wanted == wanted == len(taken)
    assert set(handing.queue.ahead) == {request.training.key}
    assert not handing.queue.complete


def test_what_ran_ahead_and_is_asked_for_by_then_counts_as_all_others_do() -> None:
    handing = Handing()
    taken = handing.students()
    early = [handing.ahead() for _ in range(4)]
    for request in taken:
        handing.end(request.training)
    asked_for = {request.training.key for request in handing.agenda.requests()}
    hit = {request.training.key for request in early} & asked_for
    assert hit
    assert set(handing.queue.ahead).isdisjoint(hit)
    assert hit.isdisjoint(request.training.key for request in handing.needed())


def test_what_failed_does_not_run_ahead_again_and_is_tried_again_when_it_is_asked_for() -> None:
    handing = Handing()
    taken = handing.students()
    failed = handing.ahead()
    handing.ledger.write_attempt(attempt_at(failed.training.key))
    handing.queue.done(failed.training.key)
    while bundle := handing.queue.take():
        assert bundle[0].training.key != failed.training.key
    for request in taken:
        handing.end(request.training)
    asked_for = {request.training.key for request in handing.agenda.requests()}
    assert failed.training.key in asked_for
    assert failed.training.key in {request.training.key for request in handing.needed()}


def test_nothing_runs_ahead_of_a_search_that_drains() -> None:
    handing = Handing()
    handing.students()
    assert list(handing.speculation)
    handing.ledger.ask_to_stop(drain=True, person=True)
    assert handing.queue.take() == ()


def test_a_search_that_drains_gives_up_what_runs_ahead() -> None:
    handing = Handing()
    taken = handing.students()
    while handing.queue.take():
        pass
    handing.ledger.ask_to_stop(drain=True, person=True)
    assert handing.queue.take() == ()
    while not handing.queue.complete:
        for request in taken:
            handing.end(request.training)
        ahead = handing.queue.ahead
        taken = [r for r in handing.queue.running if r.training.key not in ahead]
    assert handing.queue.running


def test_where_nothing_needed_ends_before_the_deadline_what_runs_ahead_is_not_waited_for() -> None:
    handing = Handing()
    deadline, more = Deadline(at=time.monotonic() + 600), handing.speculation
    handing.queue = Dispatcher(handing.agenda, handing.ledger, (), deadline, speculation=more)
    needed = handing.students()
    while handing.queue.take():
        pass
    hour = Cost(seconds=3600.0, device="", host="")
    while needed:
        for request in needed:
            outcome = outcome_of(request.training, 0.5, lowest_loss_epoch=1, cost=hour)
            handing.ledger.write_outcome(outcome)
            handing.queue.done(request.training.key)
        ahead = handing.queue.ahead
        needed = [r for r in handing.queue.running if r.training.key not in ahead]
    assert handing.queue.running
    assert not handing.agenda.complete
    assert not handing.queue.complete
    assert handing.queue.take() == ()
    assert handing.ledger.stop_asked() == "drain"
    assert handing.queue.complete


def test_of_two_cases_that_of_the_longer_path_comes_first() -> None:
    students = {"small": {"model": "small"}, "large": {"model": "big"}}
    handing = Handing(students=students)
    handing.students()
    longer = max(handing.agenda.durations().items(), key=lambda item: item[1]["student"])[0]
    assert handing.ahead().case == longer


# -- what becomes of it ----------------------------------------------------------------------------


def test_the_report_says_how_much_no_decision_asked_for_and_a_plain_one_nothing() -> None:
    found = speculated(Agenda(resolved_of(a_study())), a_world(), slots=64)
    number = len(spare(found.agenda))
    assert f" {number} more, which took" in document(analyse(found.agenda), found.agenda, {})
    resolved = resolved_of(a_study())
    plain = search_through(resolved, memory_ledger(resolved), a_world())
    assert "ahead of decisions" not in document(analyse(plain), plain, {})


def test_what_no_decision_asked_for_is_garbage_only_after_the_search_and_is_called_so(
    tmp_path: Path,
) -> None:
    resolved = resolved_of(a_study())
    ledger = Ledger(tmp_path)
    ledger.prepare()
    ledger.write_resolved(resolved)
    agenda = Agenda(resolved)
    engine = TabulatedEngine(
        look_up=Worker(folder=tmp_path, run_training=made_up_training),
        seconds=lambda training: uniform(0, training.key),
        slots=64,
    )
    engine.run(Dispatcher(agenda, ledger, speculation=Speculation(agenda)))
    assert settled(agenda)
    gone, _ = garbage(ledger, agenda)
    assert {each.name for each in gone if each.why == SPARE} >= {
        f"outcomes/{key}.json" for key in spare(agenda)
    }
    assert not [each for each in gone if each.why == EARLIER]
    [last, *_] = [each.winner.best for view in agenda.views() for each in view.progress.decisions]
    assert last is not None
    key = agenda.training(agenda.views()[0], last).key
    before = Agenda(resolved, {k: result for k, result in agenda.results.items() if k != key})
    assert spare(before) > spare(agenda)
    assert not unneeded(before)


@settings(max_examples=portion(100, 4), deadline=None)
@given(seed=seeds)
def test_weights_of_what_ran_ahead_go_once_they_cannot_win_and_a_winner_never(seed: int) -> None:
    grid = {**SMALL_GRID, "alpha": [1, 0.5]}
    resolved = resolved_of(a_study(search=grid, seeds=[1, 2] if seed % 2 else [1]))
    world = World(seed=seed, levels=3)
    agenda, ledger, watch = Agenda(resolved), memory_ledger(resolved), Ended()
    present: set[str] = set()
    removed: set[str] = set()

    def look_up(training: Training) -> None:
        world.commit(ledger, training)
        if isinstance(training, StudentTraining):
            present.add(training.key)
        gone = superseded(agenda, present, watch.started_ahead)
        present.difference_update(gone)
        removed.update(gone)

    TabulatedEngine(
        look_up=look_up, seconds=lambda training: uniform(seed, training.key), slots=30
    ).run(Dispatcher(agenda, ledger, (watch,), speculation=Speculation(agenda)))
    present -= superseded(agenda, present, watch.started_ahead)
    [view] = agenda.views()
    winner = agenda.training(view, view.progress.winner.best).key  # type: ignore[arg-type]
    assert winner in present
    assert winner not in removed
    assert present.isdisjoint(spare(agenda))


@dataclass(frozen=True, kw_only=True)
class Hanging:
    """Of temperatures 4 is the best, known once one around 1 is trained, which never ends."""

    begun: Path

    def __call__(self, training: Training, folder: Path) -> Outcome:
        temperature = getattr(getattr(training, "objective", None), "temperature", None)
        if temperature in local_temperatures((1, 4), 1):
            self.begun.touch()
            time.sleep(24 * 3600)
        while temperature == 4 and not self.begun.exists():
            time.sleep(0.05)
        return outcome_of(training, 0.9 if temperature == 4 else 0.1, lowest_loss_epoch=1)


@pytest.mark.undisturbed
def test_the_end_of_a_search_on_ray_does_not_wait_for_what_runs_ahead(
    tmp_path: Path, cluster: Cluster
) -> None:
    resolved = resolved_of(a_study(search=SMALL_GRID))
    ledger = Ledger(tmp_path / "run")
    ledger.prepare()
    ledger.write_resolved(resolved)
    agenda, watch = Agenda(resolved), Ended()
    queue = Dispatcher(agenda, ledger, (watch,), speculation=Speculation(agenda))
    worker = Worker(folder=ledger.folder, run_training=Hanging(begun=tmp_path / "begun"))
    RayTuneEngine(worker=worker, cluster=cluster).run(queue)
    assert agenda.complete
    assert watch.started_ahead.keys() - asked(agenda)
    assert ledger.attempts() == {}
