"""What slots that would idle may train ahead of the decisions that may ask for it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import chain

from kdsearch.agenda.agenda import Agenda
from kdsearch.agenda.students import CaseScores
from kdsearch.agenda.training import StudentTraining, Training
from kdsearch.agenda.view import AHEAD, CaseView, Request
from kdsearch.search import Trial, ahead
from kdsearch.study import TestCase


class Speculation:
    """Students that undecided test cases may want later, those of the longest path first.

    Nothing that an agenda says changes by one: it does not know of them before it asks for them.
    Whoever takes in a result of a case says so by `forget`.
    """

    def __init__(self, agenda: Agenda) -> None:
        self._agenda = agenda
        self._cases: dict[TestCase, tuple[CaseView, _Again]] = {}
        self._scores: dict[TestCase, CaseScores] = {}
        self._trainings: dict[TestCase, dict[Trial, tuple[StudentTraining, ...]]] = {}

    def __iter__(self) -> Iterator[Request]:
        """What may be wanted next, also what has a result, or runs; looked for as it is read."""
        durations = self._agenda.durations()
        undecided = [view for view in self._agenda.views() if self._is_undecided(view)]
        for view in sorted(
            undecided,
            key=lambda view: max(view.progress.wanted.values()) * durations[view.case]["student"],
            reverse=True,
        ):
            if view.case not in self._cases or self._cases[view.case][0] is not view:
                self._cases[view.case] = view, _Again(self._requests(view))
            yield from self._cases[view.case][1]

    def forget(self, case: TestCase) -> None:
        """A result of this case has come, which changes what is likely."""
        self._cases.pop(case, None)

    def _is_undecided(self, view: CaseView) -> bool:
        """Whether the case has a decision before it, and what its teacher says."""
        results = self._agenda.results
        trained_on = (results.get(splits[0].key) for splits in view.outputs.values())
        there = all(outcome and outcome.state == "scored" for outcome in trained_on)
        return view.ready and bool(view.progress.wanted) and there

    def _requests(self, view: CaseView) -> Iterator[Request]:
        if view.case not in self._scores:
            made = partial(self._prerequisites, view), partial(self._made, view)
            self._scores[view.case] = CaseScores(self._agenda.results, *made)
        scores = self._scores[view.case]
        known = self._agenda.scores(view)
        assert isinstance(known, CaseScores)  # its teacher is ready
        scores.tunings = known.tunings
        number = sum(trial in scores for trial in self._agenda.students(view.case))
        for trial in ahead(view.search.walk, view.space, scores, number):
            if scores.can_run(trial):
                for training in self._made(view, trial):
                    yield Request(training=training, case=view.case, stage=AHEAD)

    def _prerequisites(self, view: CaseView, trial: Trial) -> tuple[Training, ...] | None:
        """See `Agenda.prerequisites`, which would count them as asked for."""
        if not view.has_checkpoint(trial):
            return None
        return self._agenda.graph.prerequisites(view.case, trial, view.taught_by(trial))

    def _made(self, view: CaseView, trial: Trial) -> tuple[StudentTraining, ...]:
        """The trainings of a trial. The agenda's own would count them as asked for."""
        asked = self._agenda.students(view.case).get(trial)
        if asked is not None:
            return asked
        made = self._trainings.setdefault(view.case, {})
        if trial not in made:
            taught_by, graph = view.taught_by(trial), self._agenda.graph
            made[trial] = graph.students(view.case, trial, taught_by, view.start)
        return made[trial]


class _Again:
    """What an iterator yields, as often as one likes; read no further than it is asked for."""

    def __init__(self, requests: Iterator[Request]) -> None:
        self._known: list[Request] = []
        self._rest = requests

    def __iter__(self) -> Iterator[Request]:
        return chain(self._known, self._new())

    def _new(self) -> Iterator[Request]:
        for request in self._rest:
            self._known.append(request)
            yield request
