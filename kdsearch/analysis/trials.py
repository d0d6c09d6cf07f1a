"""Every trial of a study with what became of it, for a reader: the search does not look here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import Literal

from kdsearch.agenda import Agenda, CaseView, StudentTraining
from kdsearch.analysis.cases import TrialScores, further_tuned
from kdsearch.analysis.scores import on_test
from kdsearch.search import Trial
from kdsearch.study import TestCase

TrialState = Literal["scored", "diverged", "failed", "unfinished"]


@dataclass(frozen=True, kw_only=True)
class TrialResult(TrialScores):
    """A trial of a test case, and what became of its trainings: one under each seed."""

    case: TestCase
    trial: Trial
    state: TrialState
    """`unfinished` until all of its trainings have ended."""
    spread: float | None
    """The standard deviation of the test score between the seeds; None of a single one."""
    epoch: int | None
    """The best one by validation, under the first seed."""
    seconds: float
    """What its trainings took, summed; one that failed or has not ended is not timed."""


def trial_results(agenda: Agenda) -> tuple[TrialResult, ...]:
    """Every trial that the test cases have asked for so far, case by case."""
    return tuple(
        _result(agenda, view, trial, trainings)
        for view in agenda.views()
        for trial, trainings in agenda.students(view.case).items()
    )


def _result(
    agenda: Agenda, view: CaseView, trial: Trial, trainings: Sequence[StudentTraining]
) -> TrialResult:
    results = agenda.results
    ended = all(training.key in results for training in trainings)
    outcomes = [results.get(training.key) for training in trainings]
    found = on_test(agenda, trainings)
    state: TrialState = "scored"
    if not ended:
        state = "unfinished"
    elif None in outcomes:
        state = "failed"
    elif any(outcome.state == "diverged" for outcome in outcomes if outcome):
        state = "diverged"
    return TrialResult(
        case=view.case,
        trial=trial,
        state=state,
        temperature=trial.get("temperature"),
        learning_rate=trial.get("learning_rate"),
        further_tuned=further_tuned(view, trial),
        validation=agenda.scores(view)[trial] if ended else None,
        test=found.mean if found else None,
        spread=found.spread if found else None,
        epoch=outcomes[0].best_epoch if outcomes[0] else None,
        seconds=fsum(outcome.cost.seconds for outcome in outcomes if outcome),
        key=trainings[0].key,
    )
