"""How far a search is: the stage of a test case, its best score, and what was not run twice."""

from __future__ import annotations

from statistics import fmean

from kdsearch.agenda.agenda import Agenda
from kdsearch.agenda.needs import asked_by
from kdsearch.agenda.view import COMPARES, LAZY, STARTS, TRAINS_TEACHER, WINNER, CaseView
from kdsearch.study import TestCase

AXES = ("teacher", "student_temperature", "distance", "alpha")
"""What a search compares, of the paper's."""
BLOCKED = "blocked"
WAITS = "waits"
DONE = "done"
STAGES = (
    BLOCKED,
    TRAINS_TEACHER,
    STARTS,
    "outputs",
    "sequences",
    *AXES,
    COMPARES,
    "stable",
    LAZY,
    WINNER,
    WAITS,
    DONE,
)
"""Every stage that a test case can be in. Whole choices and axes that are not the paper's are
compared in `comparison`; `waits` is for the traversals of the other cases, or for the choice of the
one that teaches it."""


def stage_of(view: CaseView) -> str:
    """The stage of a test case, of `STAGES`: that of the most urgent of what it wants."""
    if view.blocked:
        return BLOCKED
    if not view.wanted:
        return DONE if view.finished else WAITS
    stage = view.wanted[0].stage
    return stage if stage in STAGES else COMPARES


def best_so_far(agenda: Agenda, case: TestCase) -> float | None:
    """The highest validation score of the case's trials that are trained under every seed."""
    means = []
    for trainings in agenda.students(case).values():
        outcomes = [agenda.results.get(training.key) for training in trainings]
        scores = [o.validation for o in outcomes if o is not None and o.validation is not None]
        if len(scores) == len(trainings):
            means.append(fmean(scores))
    return max(means, default=None)


def answered(agenda: Agenda) -> int:
    """How many of the trainings that the cases asked for have a result.

    One that is asked for by several cases, or as several trials of one, counts each time.
    """
    return sum(key in agenda.results for view in agenda.views() for key in asked_by(agenda, view))
