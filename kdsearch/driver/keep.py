"""Which students' weights stay on disk while a search runs (`keep_students: best`)."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from statistics import fmean
from types import MappingProxyType

from kdsearch.agenda import AHEAD, Agenda, CaseView, Outcome, Request, used
from kdsearch.driver.watch import Watch
from kdsearch.ledger import Ledger
from kdsearch.search import LAZY_VALUES, Candidate, Trial, tune
from kdsearch.study import TestCase, cases_before

_NONE: Mapping[str, TestCase] = MappingProxyType({})
_SECONDS_BETWEEN = 30.0
"""A few students more for half a minute cost less than to look after every training."""


def superseded(
    agenda: Agenda,
    present: Iterable[str],
    ahead: Mapping[str, TestCase] = _NONE,
    views: Iterable[CaseView] | None = None,
) -> set[str]:
    """The keys among `present` whose students no `export` can ask for any more.

    Nor can one of them teach another. `views` are of the cases whose best are kept, else of all.

    While a case is searched, the best so far is not among them; `export --best-so-far` gives it.
    The validation score of what a traversal holds never falls, so a student that is behind
    another one of its test case cannot win. A student that the study has not asked for is not one,
    but for those that ran `ahead` of a decision, of their cases.
    """
    kept = agenda.views() if views is None else views
    needed = {key for view in kept for key in _needed(agenda, view)}
    results, present = used(agenda), set(present)
    behind = _behind(agenda, {key: ahead[key] for key in present & ahead.keys() - results.keys()})
    return {*behind, *(key for key in present if key in results and key not in needed)}


def teaching(agenda: Agenda) -> list[CaseView]:
    """The cases of which a student is still to teach, or may have to write something."""
    views, study = {view.case: view for view in agenda.views()}, agenda.resolved.study
    unfinished = (view.case for view in views.values() if not (view.finished or view.blocked))
    before = {found[0] for case in unfinished if (found := cases_before(study, case))}
    return [view for case, view in views.items() if case in before]


def _behind(agenda: Agenda, ahead: Mapping[str, TestCase]) -> Iterator[str]:
    """Of students that nothing has asked for, those that cannot win."""
    views = {view.case: view for view in agenda.views()}
    for key, case in ahead.items():
        outcome, decided = agenda.results.get(key), views[case].progress.decisions
        score = outcome.validation if outcome else None
        held = decided[-1].winner.score if decided else None
        alone = len(agenda.resolved.study.student_seeds) == 1  # of several the mean counts
        if agenda.complete or (alone and score is not None and held is not None and score < held):
            yield key


def _needed(agenda: Agenda, view: CaseView) -> Iterator[str]:
    """The keys that may be a case's winner or its stable configuration, of the first seed."""
    if not view.ready:
        return
    trials = agenda.students(view.case)
    if not view.traversed:
        lazy = _lazy(agenda, view)
        yield from _leading(agenda, view, [t for t in trials if t not in lazy])
        yield from _leading(agenda, view, [t for t in trials if t in lazy])
        return
    winner = view.progress.winner.best
    if winner is not None:
        yield agenda.training(view, winner).key
    if view.phase2 is None:
        return
    if view.phase2.stable_tuned is None:
        own = [t for t in trials if view.space.includes(view.phase2.stable, t)]
        yield from _leading(agenda, view, own)
    elif view.phase2.stable_tuned.best is not None:
        yield agenda.training(view, view.phase2.stable_tuned.best).key


def _lazy(agenda: Agenda, view: CaseView) -> Collection[Trial]:
    """Trials that the traversal may never come to, which then cannot win with any score."""
    if not view.search.flips:
        return ()
    found = tune(agenda.lazy(view), view.space, {}, fixed=LAZY_VALUES)
    assert not isinstance(found, Candidate)
    return found.keys()


def _leading(agenda: Agenda, view: CaseView, trials: Iterable[Trial]) -> Iterator[str]:
    """Those of the highest score so far, and those whose score is not known yet."""
    scored: dict[str, float] = {}
    for trial in trials:
        trainings = agenda.trainings(view, trial)
        key = trainings[0].key
        if any(training.key not in agenda.results for training in trainings):
            yield key
            continue
        outcomes = [agenda.results[training.key] for training in trainings]
        scores = [o.validation for o in outcomes if o is not None and o.validation is not None]
        if len(scores) == len(trainings):
            scored[key] = fmean(scores)
    best = max(scored.values(), default=None)
    yield from (key for key, score in scored.items() if score == best)


class Keep(Watch):
    """Removes the weights of students that cannot be asked for any more."""

    def __init__(self, ledger: Ledger, agenda: Agenda) -> None:
        self._ledger = ledger
        self._agenda = agenda
        self._ahead: dict[str, TestCase] = {}
        self._due = time.monotonic() + _SECONDS_BETWEEN

    def started(self, request: Request) -> None:
        """See `Watch`."""
        if request.stage == AHEAD:
            self._ahead[request.training.key] = request.case

    def finished(self, request: Request, outcome: Outcome) -> None:
        """See `Watch`."""
        if time.monotonic() >= self._due:
            self.remove()

    def remove(self) -> None:
        """Remove them now, if the study keeps the best ones only, or none but what teaches."""
        study, views = self._agenda.resolved.study, None
        if study.keep_students == "none":
            views = teaching(self._agenda)
        students_teach = any(teacher.student_of for teacher in study.teachers.values())
        if study.keep_students == "best" or (study.keep_students == "none" and students_teach):
            there = self._ledger.kept_students()
            for key in superseded(self._agenda, there, self._ahead, views):
                self._ledger.remove_student(key)
        self._due = time.monotonic() + _SECONDS_BETWEEN
