"""The teachers of test cases: what is wanted of one, whether it is ready, what comes after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from kdsearch.agenda.graph import Graph
from kdsearch.agenda.outcome import Outcome
from kdsearch.agenda.speed import Kind, Speeds
from kdsearch.agenda.students import requests_of
from kdsearch.agenda.training import CheckpointSpec, StudentTraining, TeacherTraining
from kdsearch.agenda.view import STARTS, TRAINS_TEACHER, CaseView, Request
from kdsearch.search import CHECKPOINT, Checkpoint, Space, ValidationScore
from kdsearch.study import (
    Resolved,
    Role,
    TestCase,
    cases_before,
    cases_behind,
    search_of,
    space_of,
    test_cases,
)


class Teachers:
    """Those of a study's cases, as far as the `results` tell, which others add to."""

    def __init__(
        self, resolved: Resolved, graph: Graph, results: Mapping[str, Outcome | None]
    ) -> None:
        self._study = study = resolved.study
        self._graph = graph
        self._results = results
        cases = test_cases(study)
        self._before = {case: found for case in cases if (found := cases_before(study, case))}
        """Of the cases that a student teaches: see `cases_before`."""
        self._behind = cases_behind(study, cases)
        self._rounds = {case: self._rounds_of(case) for case in self._before}

    def before(self, case: TestCase) -> TestCase | None:
        """The case whose choice teaches this one; None where no student does."""
        return self._before[case][0] if case in self._before else None

    def followers(self, case: TestCase) -> set[TestCase]:
        """The cases that its choice teaches."""
        return {way[0] for way in self._behind.get(case, ()) if len(way) == 1}

    def seconds_behind(
        self, case: TestCase, speeds: Speeds, kinds: Mapping[TestCase, Mapping[Role, Kind]]
    ) -> float:
        """From a case's choice to the end of the last search that it leads to, outputs first."""
        ways = self._behind.get(case, ())
        each = (sum(speeds.path(kinds[c], "outputs", self._rounds[c]) for c in way) for way in ways)
        return max(each, default=0.0)

    def view(self, case: TestCase) -> CaseView:
        """A case before any student: what it wants of its teacher, and whether that is ready."""
        space, search = space_of(self._study, case), search_of(self._study, case)
        view = CaseView(case=case, search=search, space=space, wanted=())
        trainings, starts = self._graph.teachers(case), self._graph.starts(case)
        wanted = self._wanted(case, TRAINS_TEACHER, trainings)
        known = {training.key for training in trainings}
        wanted += self._wanted(case, STARTS, (each for each in starts if each.key not in known))
        if wanted:
            return replace(view, wanted=wanted)
        chosen, start = self._best(trainings), self._start(case)
        if trainings and chosen is None:
            return replace(view, blocked="no training of its teacher succeeded")
        if starts and start is None:
            name = self._study.students[case.student].start
            blocked = f"no training of {name}, which its student starts from, succeeded"
            return replace(view, blocked=blocked, blocked_at=STARTS)
        checkpoints = self._checkpoints(case, space, chosen)
        outputs = {name: self._graph.outputs(case, c) for name, c in checkpoints.items()}
        return replace(view, ready=True, teacher_training=chosen, start=start, outputs=outputs)

    def view_after(
        self, case: TestCase, found: CaseView | None, winner: StudentTraining | None
    ) -> CaseView:
        """The same of a case that a student teaches.

        `found` is where the case before stands, None while that is unknown, and `winner` what that
        chose, under the first seed.
        """
        space, search = space_of(self._study, case), search_of(self._study, case)
        before, *_ = every = self._before[case]
        view = CaseView(case=case, search=search, space=space, wanted=(), before=every)
        if found is not None and found.blocked:
            return replace(view, blocked=f"{before}, which its teacher comes from, is blocked")
        if found is None or not found.traversed:
            return replace(view, waits_for=before)
        if winner is None:
            return replace(view, blocked=f"no student of {before} has a score, so none can teach")
        outputs = self._graph.outputs(case, self._graph.winner(winner))
        start = self._start(case)  # where the students of the case before start too
        return replace(view, ready=True, start=start, outputs={Checkpoint.WINNER: outputs})

    def _wanted(
        self, case: TestCase, stage: str, trainings: Iterable[TeacherTraining]
    ) -> tuple[Request, ...]:
        unknown = [training for training in trainings if training.key not in self._results]
        return requests_of(case, stage, unknown, self._rounds_of(case)) if unknown else ()

    def _start(self, case: TestCase) -> CheckpointSpec | None:
        """The best epoch of the best training of what a case's student starts from."""
        best = self._best(self._graph.starts(case))
        if best is None:
            return None
        outcome = self._results[best.key]
        assert outcome is not None
        assert outcome.best_epoch is not None
        return self._graph.checkpoint(best, outcome.best_epoch)

    def _rounds_of(self, case: TestCase) -> int:
        """How many rounds of students a case's search has at most, as far as is known before it."""
        space = space_of(self._study, case)
        return max(search_of(self._study, case).walk(space, {}).wanted.values())

    def _best(self, trainings: tuple[TeacherTraining, ...]) -> TeacherTraining | None:
        """Of several learning rates, the one of the highest validation score."""
        best: tuple[ValidationScore, TeacherTraining] | None = None
        for training in trainings:
            outcome = self._results[training.key]
            if outcome is None or outcome.validation is None:
                continue
            if best is None or outcome.validation > best[0]:
                best = (outcome.validation, training)
        return best[1] if best else None

    def _checkpoints(
        self, case: TestCase, space: Space, chosen: TeacherTraining | None
    ) -> dict[Checkpoint, CheckpointSpec]:
        if case.teacher is None:
            return {}
        if chosen is None:
            given = self._study.teachers[case.teacher].given
            return {n: self._graph.given(case, given[n]) for n in space.values(CHECKPOINT)}
        outcome = self._results[chosen.key]
        assert outcome is not None
        epochs = {
            Checkpoint.HIGHEST_SCORE: outcome.best_epoch,
            Checkpoint.LOWEST_LOSS: outcome.lowest_loss_epoch,
        }
        return {
            name: self._graph.checkpoint(chosen, epoch)
            for name in space.values(CHECKPOINT)
            if (epoch := name.epoch or epochs.get(name)) is not None
        }
