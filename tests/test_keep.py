from __future__ import annotations

import random
from typing import Any

from conftest import portion
from fakes import World, a_study, memory_ledger, random_study, resolved_of, uniform
from hypothesis import given, settings
from hypothesis import strategies as st

from kdsearch.agenda import Agenda, Outcome, Request, StudentTraining
from kdsearch.driver import Dispatcher
from kdsearch.driver.keep import superseded
from kdsearch.engine import TabulatedEngine
from kdsearch.search import best_trial


class Kept:
    """A watch that keeps students as the driver does, after every training."""

    def __init__(self, agenda: Agenda) -> None:
        self.agenda = agenda
        self.present: set[str] = set()
        self.removed: set[str] = set()
        self.most = 0
        self.best_so_far: set[str] = set()
        """Of what `--best-so-far` asked for at any time, the students that had been removed."""

    def started(self, request: Request) -> None: ...

    def finished(self, request: Request, outcome: Outcome) -> None:
        if isinstance(outcome.training, StudentTraining):
            self.present.add(outcome.key)
        self.remove()
        for view in self.agenda.views():
            scored = self.agenda.scored(view)
            best = best_trial(scored, scored)
            if best is not None and not view.traversed:
                self.best_so_far |= {self.agenda.training(view, best).key} - self.present

    def remove(self) -> None:
        gone = superseded(self.agenda, self.present)
        self.present -= gone
        self.removed |= gone
        self.most = max(self.most, len(self.present))

    def failed(self, request: Request, attempt: object, *, for_good: bool) -> None: ...

    def tick(self) -> None: ...


def searched(raw: dict[str, Any], world: World, order: int = 0, slots: int = 1) -> Kept:
    resolved = resolved_of(raw)
    ledger = memory_ledger(resolved)
    agenda = Agenda(resolved)
    kept = Kept(agenda)
    TabulatedEngine(
        look_up=lambda training: world.commit(ledger, training),
        seconds=lambda training: uniform(order, training.key),
        slots=slots,
    ).run(Dispatcher(agenda, ledger, (kept,)))
    kept.remove()  # as at the end of a search: the last training may have failed
    return kept


def winners(agenda: Agenda) -> set[str]:
    found = set()
    for view in agenda.views():
        if view.progress is not None and view.traversed:
            best = view.progress.winner.best
            if best is not None:
                found.add(agenda.training(view, best).key)
    return found


@settings(max_examples=portion(150, 15))
@given(seed=st.integers(0, 2**32 - 1), slots=st.integers(1, 8))
def test_a_winner_is_never_removed_and_little_else_is_left(seed: int, slots: int) -> None:
    draw = random.Random(seed)
    raw = random_study(draw)
    world = World(
        seed=seed,
        levels=draw.choice([1, 2, 5, 10_000]),
        failing=draw.choice([0, 0.1]),
        diverging=draw.choice([0, 0.2]),
    )
    kept = searched(raw, world, order=seed, slots=slots)
    wanted = winners(kept.agenda)
    assert wanted <= kept.present
    assert wanted.isdisjoint(kept.removed)
    assert len(kept.present) <= 2 * len(kept.agenda.cases)  # a winner and a stable one
    assert not kept.best_so_far


def test_far_fewer_students_are_kept_than_are_trained() -> None:
    kept = searched(a_study(), World(seed=1))
    outcomes = [outcome for outcome in kept.agenda.results.values() if outcome is not None]
    trained = sum(outcome.training.kind == "student" for outcome in outcomes)
    assert kept.most <= 4
    assert trained > 20


def test_with_several_seeds_the_first_ones_student_stays() -> None:
    kept = searched(a_study(seeds=[5, 6]), World(seed=1))
    outcomes = [kept.agenda.results[key] for key in kept.present]
    assert {o.training.seed for o in outcomes if o and o.training.kind == "student"} == {5}


def test_of_what_a_case_chose_the_first_seeds_student_stays() -> None:
    kept = searched(a_study(winner_seeds=[0, 5, 6]), World(seed=1))
    [case] = kept.agenda.cases
    assert winners(kept.agenda) <= kept.present
    assert {training.key for training in kept.agenda.further(case)} <= kept.removed


def test_the_student_without_a_teacher_stays() -> None:
    kept = searched(a_study(erm=True), World(seed=1))
    [_, twin] = kept.agenda.views()
    assert twin.case.teacher is None
    assert twin.chosen is not None
    assert kept.agenda.training(twin, twin.chosen).key in kept.present
