"""The agenda: a pure function of a study and of the results so far.

    agenda(study, results) -> the trainings that can run now, most urgent first | complete

It holds no state of its own but a cache: a new result re-decides only the cases for which something
may follow from it, and of these only what it changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from statistics import fmean
from typing import TypeVar

from kdsearch.agenda.graph import Graph
from kdsearch.agenda.outcome import Outcome
from kdsearch.agenda.speed import Speeds, kind_of, kinds_of, sizes, students_of
from kdsearch.agenda.students import OpenRounds, Students, requests_of
from kdsearch.agenda.teachers import Teachers
from kdsearch.agenda.training import (
    StudentTraining,
    Training,
)
from kdsearch.agenda.view import (
    COMPARES,
    LAZY,
    STARTS,
    WINNER,
    CaseView,
    Phase2,
    Request,
)
from kdsearch.agenda.waiting import Waiting
from kdsearch.search import (
    LAZY_VALUES,
    Candidate,
    Choice,
    Held,
    Labels,
    Reward,
    Scores,
    Trial,
    ValidationScore,
    lazy_choice,
    rewards,
    stable_choice,
    stable_values,
)
from kdsearch.study import (
    ROLES,
    Resolved,
    Role,
    TestCase,
    search_of,
    space_of,
    start_cases,
    test_cases,
)

Results = Mapping[str, Outcome | None]
"""By key: an outcome, None for a training that failed for good, absent while unknown."""

_Some = TypeVar("_Some", bound=Training)


class Agenda:
    """The cached agenda. `results` may be given at once, or one by one with `add`."""

    def __init__(self, resolved: Resolved, results: Results | None = None) -> None:
        self.resolved = resolved
        self.cases = test_cases(resolved.study)
        self.graph = Graph(resolved)
        """What makes the trainings of its cases."""
        self._results: dict[str, Outcome | None] = dict(results or {})
        study = resolved.study
        self._searches = {case: search_of(study, case) for case in self.cases}
        self._lazy = {
            case: lazy_choice(space_of(study, case), f"{study.seed}/{case}")
            for case in self.cases
            if self._searches[case].flips
        }
        self._without_teacher = {
            (case.dataset, case.student): case
            for case in reversed(self.cases)
            if case.teacher is None and self._searches[case].distance == (Labels.kind,)
        }
        self._teachers = Teachers(resolved, self.graph, self._results)
        self._kinds = {
            case: kinds_of(study, case, resolved.datasets[case.dataset].splits["train"].digest)
            for case in (*self.cases, *start_cases(study))
        }
        self._students_of = {
            case: students_of(study, case, kinds["student"]) for case, kinds in self._kinds.items()
        }
        """Their kinds."""
        self._speeds = Speeds(sizes(resolved))
        for result in self._results.values():
            self._learn(result)
        self._waiting = Waiting(self.cases, self._urgency)
        self._due = set(self.cases)
        """The cases where something may follow from what has come."""
        self._views: dict[TestCase, CaseView] = {}
        """Those that hold; where no more than a request has gone, it is still to be made anew."""
        self._untraversed = {
            name: {case for case in self._lazy if case.search == name} for name in self.flipping
        }
        self._students: dict[TestCase, Students] = {}
        """Of the cases whose teacher is ready."""
        self._trainings: dict[TestCase, dict[Trial, tuple[StudentTraining, ...]]] = defaultdict(
            dict
        )
        self._keys: dict[TestCase, set[str]] = defaultdict(set)
        """Of these trainings."""
        self._prerequisites: dict[TestCase, dict[Trial, tuple[Training, ...] | None]] = defaultdict(
            dict
        )
        self._winners: dict[TestCase, tuple[StudentTraining, ...]] = {}
        self._stable: dict[str | None, Held] = {}
        """Of each search, once it is decided."""

    @property
    def results(self) -> Results:
        """The results so far."""
        return self._results

    def add(self, key: str, result: Outcome | None) -> None:
        """Take in a result: an outcome, or None for a training that failed for good."""
        self._results[key] = result
        self._learn(result)
        for case, more in self._waiting.end(key).items():
            self._views.pop(case, None)
            if more:
                self._due.add(case)

    def durations(self) -> dict[TestCase, dict[Role, float]]:
        """The seconds that each case's trainings take, by what has ended so far.

        Where its students differ in their epochs, of those the mean.
        """
        return {
            case: {role: self._speeds.seconds(kind) for role, kind in kinds.items()}
            | {"student": fmean(map(self._speeds.seconds, self._students_of[case]))}
            for case, kinds in self._kinds.items()
        }

    @property
    def longest(self) -> Mapping[Role, float]:
        """The seconds of the longest training of each role so far; 0 before the first."""
        return self._speeds.longest

    def requests(self) -> tuple[Request, ...]:
        """What can run now, each training once, that with the longest path after it first.

        A path is in seconds, learnt from the trainings that ended. Nothing waits for the lazy
        baseline and for what a case chose under further seeds, whose path is their own length.
        """
        return tuple(self.by_urgency())

    def by_urgency(self) -> Iterator[Request]:
        """The same one by one, where few of them are looked at; not beyond the next result."""
        self._decide()
        return iter(self._waiting)

    def count(self, roles: Collection[Role] = ROLES, but: Collection[str] = ()) -> int:
        """How many trainings of these roles can run now, those of the keys `but` left out."""
        self._decide()
        return self._waiting.count(roles, but)

    def asks_for(self, key: str) -> bool:
        """Whether the training of this key can run now."""
        self._decide()
        return key in self._waiting

    @property
    def complete(self) -> bool:
        """Whether nothing is left to run: all is decided, or blocked for good."""
        return self.count() == 0

    def views(self) -> tuple[CaseView, ...]:
        """Where each case stands, in the order of the study file."""
        self._due.update(case for case in self.cases if case not in self._views)
        self._decide()
        return tuple(self._views[case] for case in self.cases)

    @property
    def flipping(self) -> tuple[str | None, ...]:
        """The searches that flip one axis at a time, which have rewards and a second phase."""
        return tuple(dict.fromkeys(case.search for case in self._lazy))

    def views_of(self, search: str | None) -> tuple[CaseView, ...]:
        """Where the cases of a search stand that flips one axis at a time; () of another."""
        return tuple(v for v in self.views() if v.case.search == search and v.search.flips)

    def without_teacher(self, case: TestCase) -> CaseView | None:
        """The case of the same student that learns from the labels alone; None where none does."""
        other = self._without_teacher.get((case.dataset, case.student))
        if other is not None and other not in self._views:
            self.views()
        return self._views[other] if other else None

    def is_erm(self, case: TestCase) -> bool:
        """Whether it is the student on the labels alone that others are compared with."""
        return case == self._without_teacher.get((case.dataset, case.student))

    def rewards(self, search: str | None = None) -> tuple[Reward, ...]:
        """The rewards (Table 3) over the traversals of a search that are finished."""
        self.views()
        return self._rewards(search)

    def _rewards(self, search: str | None) -> tuple[Reward, ...]:
        views = [self._views[case] for case in self.cases if case.search == search]
        finished = [view for view in views if view.traversed]
        axes = dict.fromkeys(axis.name for view in finished for axis in view.space.voted)
        return rewards([v.progress for v in finished], axes)

    def stable(self, search: str | None = None) -> Held | None:
        """Where the stable configuration leaves the default; None before the second phase."""
        self.views()
        return self._stable.get(search)

    def trainings(self, view: CaseView, trial: Trial) -> tuple[StudentTraining, ...]:
        """The trainings of a trial in a case whose teacher is ready: one under each seed."""
        known = self._trainings[view.case]
        if trial not in known:
            taught_by = view.taught_by(trial)
            known[trial] = self.graph.students(view.case, trial, taught_by, view.start)
            self._keys[view.case].update(training.key for training in known[trial])
        return known[trial]

    def prerequisites(self, view: CaseView, trial: Trial) -> tuple[Training, ...] | None:
        """What the students of a trial wait for in a case whose teacher is ready.

        None where there is no such checkpoint of its teacher.
        """
        known = self._prerequisites[view.case]
        if trial not in known:
            there = view.has_checkpoint(trial)
            known[trial] = (
                self.graph.prerequisites(view.case, trial, view.taught_by(trial)) if there else None
            )
        return known[trial]

    def waited_for(self, case: TestCase) -> Iterator[Training]:
        """What the students wait for of the trials that the case has asked for so far.

        Of a trial that cannot run any more, what there is of it.
        """
        students = self._students.get(case)
        for trial, trainings in self._prerequisites[case].items():
            given_up = students is not None and students.scores.cannot_run(trial)
            for training in trainings or ():
                if not given_up or training.key in self._results:
                    yield training

    def training(self, view: CaseView, trial: Trial) -> StudentTraining:
        """The training of a trial under the first seed."""
        return self.trainings(view, trial)[0]

    def students(self, case: TestCase) -> Mapping[Trial, tuple[StudentTraining, ...]]:
        """Every trial that the case has asked for so far and that can run, with its trainings."""
        known, students = self._trainings[case], self._students.get(case)
        if students is None:
            return known
        return {trial: t for trial, t in known.items() if not students.scores.cannot_run(trial)}

    def winners(self, case: TestCase) -> tuple[StudentTraining, ...]:
        """The trainings of what the case chose, under each of the study's winner seeds.

        Nothing where the study has none, while its search is not finished, and where nothing that
        it chose from has a score.
        """
        return self._winners.get(case, ())

    def further(self, case: TestCase) -> tuple[StudentTraining, ...]:
        """Those of `winners` whose seed the search did not have."""
        further = self.resolved.study.further_seeds
        return tuple(training for training in self.winners(case) if training.seed in further)

    def scores(self, view: CaseView) -> Scores:
        """The validation scores of a case's trials; none before its teacher is ready."""
        students = self._students.get(view.case)
        return students.scores if students else {}

    def scored(self, view: CaseView) -> dict[Trial, ValidationScore]:
        """The trials that the case has asked for so far and that have a score, with it."""
        scores, asked = self.scores(view), tuple(self.students(view.case))
        known = {trial: scores[trial] for trial in asked if trial in scores}
        return {trial: score for trial, score in known.items() if score is not None}

    def lazy(self, view: CaseView) -> Choice:
        """What is drawn for the case's lazy baseline."""
        return self._lazy[view.case]

    def _learn(self, result: Outcome | None) -> None:
        if result is not None:
            seconds = result.cost.seconds
            self._speeds.learn(kind_of(result.training), seconds, seconds * result.fused)

    def _urgency(self, case: TestCase, role: Role, rounds: int) -> float:
        own = self._speeds.path(self._kinds[case], role, rounds)
        return own + self._teachers.seconds_behind(case, self._speeds, self._kinds)

    def trained(self, *cases: TestCase) -> int:
        """How many students of these cases have a result; one that they share counts once."""
        further = {training.key for case in cases for training in self.further(case)}
        students = further.union(*(self._keys[case] for case in cases))
        return len(students & self._results.keys())

    def _decide(self) -> None:
        """Decide what follows from the results so far."""
        while self._due:
            self._walk(self._due.pop())
            for name, cases in self._untraversed.items():
                if not cases and name not in self._stable:
                    self._decide_stable(name)

    def _walk(self, case: TestCase) -> None:
        """Decide a case anew."""
        if case not in self._students:
            view = self._of_teacher(case)
            if not view.ready:
                self._keep(view, ())
                return
            known = partial(self.prerequisites, view), partial(self.trainings, view)
            self._students[case] = Students(view, self._results, *known)
        students = self._students[case]
        view, open_rounds = self._first_phase(students)
        if view.traversed and case.search in self._stable:
            view, more = self._second_phase(view, self._stable[case.search])
            open_rounds += more
        self._keep(view, open_rounds)

    def _keep(self, view: CaseView, open_rounds: OpenRounds) -> None:
        self._views[view.case] = view
        if view.blocked or view.traversed:
            self._untraversed.get(view.case.search, set()).discard(view.case)
            self._due |= self._teachers.followers(view.case) - self._students.keys()
        students = self._students.get(view.case)
        keys = map(students.lacking, open_rounds) if students else ()
        self._waiting.put(view.case, view.wanted, keys)

    def _of_teacher(self, case: TestCase) -> CaseView:
        """A case before any student: what it wants of its teacher, and whether that is ready."""
        before = self._teachers.before(case)
        if before is None:
            return self._teachers.view(case)
        found = self._views.get(before)
        winner = self.training(found, found.chosen) if found and found.chosen else None
        return self._teachers.view_after(case, found, winner)

    def _first_phase(self, students: Students) -> tuple[CaseView, OpenRounds]:
        """Where a case stands before the second phase, and what it waits for as a whole."""
        view, scores = students.view, students.scores
        case, space, search, outputs = view.case, view.space, view.search, view.outputs
        progress = search.walk(space, scores)
        view, open_rounds = replace(view, progress=progress), progress.open_rounds
        # Of every checkpoint, whichever is wanted: also on the splits where it is scored.
        every = {t.key: t for splits in zip(*outputs.values(), strict=True) for t in splits}
        rounds = max(progress.wanted.values(), default=0)
        wanted = requests_of(case, "outputs", self._unknown(every.values()), rounds)
        if progress.pending is not None:
            stage = progress.pending.axis or COMPARES
            wanted += students.ready(stage, progress.wanted)
        if search.flips:  # the lazy baseline needs no traversal; it may meet one
            lazy = students.tune(self.lazy(view), LAZY_VALUES)
            if not isinstance(lazy, Candidate):
                wanted += students.ready(LAZY, lazy)
                open_rounds += (frozenset(lazy),)
        wanted += requests_of(case, STARTS, self._unknown(self.graph.of_start(case, view.start)))
        if view.chosen is not None:
            seeds = self.resolved.study.winner_seeds or ()
            self._winners[case] = self.training(view, view.chosen).under(seeds)
            wanted += requests_of(case, WINNER, self._unknown(self.further(case)))
        return replace(view, wanted=_distinct(wanted)), open_rounds

    def _second_phase(self, view: CaseView, stable: Held) -> tuple[CaseView, OpenRounds]:
        """The same with the second phase."""
        students, wanted, open_rounds = self._students[view.case], view.wanted, OpenRounds()
        choice, lazy = stable_choice(view.space, stable), self.lazy(view)
        found, lazy_found = students.tune(choice), students.tune(lazy, LAZY_VALUES)
        if not isinstance(found, Candidate):
            wanted = _distinct((*students.ready("stable", found), *wanted))
            open_rounds = (frozenset(found),)
        phase2 = Phase2(
            stable=choice,
            stable_tuned=found if isinstance(found, Candidate) else None,
            lazy=lazy,
            lazy_tuned=lazy_found if isinstance(lazy_found, Candidate) else None,
        )
        return replace(view, wanted=wanted, phase2=phase2), open_rounds

    def _decide_stable(self, name: str | None) -> None:
        """Decide the stable configuration of a search, all of whose cases are traversed."""
        cases = [case for case in self._lazy if case.search == name]
        for case in cases:
            if case not in self._views:
                self._walk(case)
        self._stable[name] = stable_values(self._rewards(name))
        self._due.update(cases)

    def _unknown(self, trainings: Iterable[_Some]) -> list[_Some]:
        return [training for training in trainings if training.key not in self._results]


def _distinct(requests: Iterable[Request]) -> tuple[Request, ...]:
    """Of several requests for one training the first."""
    found: dict[str, Request] = {}
    for request in requests:
        found.setdefault(request.training.key, request)
    return tuple(found.values())
