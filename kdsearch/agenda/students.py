"""The students of a test case whose teacher is ready: their scores, and what is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from statistics import fmean

from kdsearch.agenda.outcome import Outcome
from kdsearch.agenda.training import StudentTraining, Training
from kdsearch.agenda.view import CaseView, Request
from kdsearch.search import (
    NOTHING,
    Candidate,
    Choice,
    Held,
    Remembered,
    Trial,
    ValidationScore,
    Wanted,
    tune,
)
from kdsearch.study import TestCase

OpenRounds = tuple[frozenset[Trial], ...]
"""Trials by what waits for them: see `Progress.open_rounds`."""
Prerequisites = Callable[[Trial], Sequence[Training] | None]
"""Of a trial, what must have a scored outcome before its students can run (`Graph.prerequisites`);
None where the teacher's training did not keep its checkpoint."""


def requests_of(
    case: TestCase, stage: str, trainings: Iterable[Training], rounds: int = 1
) -> tuple[Request, ...]:
    """A request for each training."""
    return tuple(Request(training=t, case=case, stage=stage, rounds=rounds) for t in trainings)


class CaseScores(Remembered):
    """The scores of a case whose teacher is ready, by the keys of each trial's `trainings`.

    A trial's score is the mean over the seeds; if one of them has none, neither has the trial, nor
    has one of whose prerequisites one has failed. Teacher checkpoints that coincide have one key,
    so their trials have one score.
    """

    def __init__(
        self,
        results: Mapping[str, Outcome | None],
        prerequisites: Prerequisites,
        trainings: Callable[[Trial], Sequence[StudentTraining]],
    ) -> None:
        super().__init__()
        self._results = results
        self._prerequisites = prerequisites
        self._trainings = trainings
        self._known: dict[Trial, ValidationScore | None] = {}

    def __getitem__(self, trial: Trial) -> ValidationScore | None:
        if trial not in self._known:
            if not self._is_known(trial):
                raise KeyError(trial)
            self._known[trial] = self._score(trial)
        return self._known[trial]

    def __contains__(self, trial: object) -> bool:
        return isinstance(trial, Trial) and (trial in self._known or self._is_known(trial))

    def _is_known(self, trial: Trial) -> bool:
        if self.cannot_run(trial):
            return True
        return all(training.key in self._results for training in self._trainings(trial))

    def _score(self, trial: Trial) -> ValidationScore | None:
        if self.cannot_run(trial):
            return None
        outcomes = [self._results[training.key] for training in self._trainings(trial)]
        scores = [outcome.validation if outcome else None for outcome in outcomes]
        scored = [score for score in scores if score is not None]
        return ValidationScore(fmean(scored)) if len(scored) == len(scores) else None

    def cannot_run(self, trial: Trial) -> bool:
        """Whether there will never be what its students learn from."""
        before = self._prerequisites(trial)
        return before is None or any(
            training.key in self._results and not self._is_there(training.key)
            for training in before
        )

    def can_run(self, trial: Trial) -> bool:
        """Whether what the trial's students learn from is there."""
        before = self._prerequisites(trial)
        return before is not None and all(self._is_there(training.key) for training in before)

    def before(self, trial: Trial) -> Iterator[Training]:
        """What of a trial's prerequisites can run now; of one that can never run, nothing."""
        if self.cannot_run(trial):
            return
        for training in self._prerequisites(trial) or ():
            if training.key not in self._results and all(map(self._is_there, training.reads)):
                yield training

    def _is_there(self, key: str) -> bool:
        outcome = self._results.get(key)
        return outcome is not None and outcome.state == "scored"

    def __iter__(self) -> Iterator[Trial]:
        raise TypeError("scores are looked up, not listed")

    __len__ = __iter__  # type: ignore[assignment]


class Students:
    """What is known of a case's students, and stays as it is when further results come."""

    def __init__(
        self,
        view: CaseView,
        results: Mapping[str, Outcome | None],
        prerequisites: Prerequisites,
        trainings: Callable[[Trial], Sequence[StudentTraining]],
    ) -> None:
        """`view` is that of the case before any student."""
        self.view = view
        self.scores = CaseScores(results, prerequisites, trainings)
        self._results = results
        self._trainings = trainings
        self._requests: dict[Trial, tuple[Request, ...]] = {}

    def tune(self, choice: Choice, fixed: Held = NOTHING) -> Candidate | Wanted:
        """Tune a choice, as far as there are scores."""
        return tune(choice, self.view.space, self.scores, fixed=fixed)

    def ready(self, stage: str, missing: Wanted) -> tuple[Request, ...]:
        """What of `missing` can run now, under every seed, and of what that waits for."""
        before = {
            training.key: Request(
                training=training, case=self.view.case, stage=training.kind, rounds=rounds
            )
            for trial, rounds in sorted(missing.items(), key=lambda item: item[1])
            for training in self.scores.before(trial)
        }
        students = (
            request
            for trial, rounds in missing.items()
            if self.scores.can_run(trial)
            for request in self._asked(trial, stage, rounds)
            if request.training.key not in self._results
        )
        return (*before.values(), *students)

    def lacking(self, trials: Iterable[Trial]) -> set[str]:
        """The keys of the trials' trainings that have no result yet."""
        keys = {training.key for trial in trials for training in self._trainings(trial)}
        return {key for key in keys if key not in self._results}

    def _asked(self, trial: Trial, stage: str, rounds: int) -> tuple[Request, ...]:
        found = self._requests.get(trial)
        if found is None or (found[0].stage, found[0].rounds) != (stage, rounds):
            found = requests_of(self.view.case, stage, self._trainings(trial), rounds)
            self._requests[trial] = found
        return found
