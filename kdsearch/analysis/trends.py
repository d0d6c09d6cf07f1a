"""What goes with what over the students and the teachers of a study, data set by data set.

Whether small students gain more by distillation than large ones, and good teachers bring more than
poor ones: as in "On the Generalization vs Fidelity Paradox in Knowledge Distillation" (arXiv
2505.15442), of which only the abstract was at hand, so that the statistics are ours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from kdsearch.agenda import Agenda
from kdsearch.analysis.cases import CaseResult
from kdsearch.analysis.correlation import Correlation, spearman
from kdsearch.analysis.measures import CaseMeasures
from kdsearch.study import SPECS, TestCase, cases_before


class Of(StrEnum):
    """What a trend is of."""

    SIZE = "size"
    """The gain over the student without a teacher, by the student's parameters."""
    TEACHER = "teacher"
    """The same, by the score of the teacher's checkpoint that taught."""
    AGREEMENT = "agreement"
    """The student's score, by its agreement with the teacher."""


class Absent(StrEnum):
    """Why a trend has no ρ."""

    NO_ERM = "no_erm"
    """There are no students without a teacher, which a gain is over."""
    ONE = "one"
    """There is one student, or one teacher."""
    UNKNOWN = "unknown"
    """No data set has a value of all of them, or not yet."""
    SAME = "same"
    """All have the same."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """A test case in a trend; scores and gains are in points, the largest score being 100."""

    case: TestCase
    x: float
    y: float


@dataclass(frozen=True, kw_only=True)
class Trend:
    """One quantity by another, over the test cases."""

    of: Of
    points: tuple[Point, ...]
    """Of all cases of which both are known, those that the correlation leaves out too."""
    correlation: Correlation | None
    """Within what the cases have in common but for the student (the teacher)."""
    absent: Absent | None
    """Why there is none."""
    left_out: int
    """How many blocks are not in the correlation: they lack one of the students (teachers), or have
    the same of all."""


def trends(
    agenda: Agenda, cases: Sequence[CaseResult], measured: Sequence[CaseMeasures]
) -> tuple[Trend, ...]:
    """The trends of a study; none of one with a single student and a single teacher.

    A student that teaches is no further teacher: its score is a sum of the gains before it.
    """
    taught = [case for case in cases if case.case.teacher is not None]
    by_teachers = [case for case in taught if not cases_before(agenda.resolved.study, case.case)]
    students = {case.case.student for case in taught}
    if len(students) < 2 and len({case.case.teacher for case in by_teachers}) < 2:
        return ()
    agreeing = {
        found.case: each.mean
        for found in measured
        for model in found.models
        if model.model == "student, as chosen" and (each := model.test.get("agreement"))
    }

    def in_points(case: CaseResult, score: float | None) -> float | None:
        task = agenda.resolved.datasets[case.case.dataset].task
        return None if score is None else 100 * score / SPECS[task].largest_score

    def teacher_score(case: CaseResult) -> float | None:
        return in_points(case, case.taught_by.test if case.taught_by else None)

    def student_score(case: CaseResult) -> float | None:
        seeds = case.winner_under_seeds
        winner = case.winner.test if case.winner else None
        return in_points(case, seeds.test if seeds and seeds.test is not None else winner)

    erm = any(agenda.is_erm(case.case) for case in cases)
    return (
        _trend(
            Of.SIZE,
            taught,
            lambda case: case.size.parameters if case.size else None,
            lambda case: case.over_erm_points,
            erm=erm,
        ),
        _trend(Of.TEACHER, by_teachers, teacher_score, lambda case: case.over_erm_points, erm=erm),
        _trend(Of.AGREEMENT, taught, lambda case: agreeing.get(case.case), student_score, erm=True),
    )


def _trend(
    of: Of,
    cases: Sequence[CaseResult],
    x: Callable[[CaseResult], float | None],
    y: Callable[[CaseResult], float | None],
    *,
    erm: bool,
) -> Trend:
    """`y` by `x`, over those cases that have both."""
    every = {_unit(of, case.case): None for case in cases}
    points = [
        Point(case=case.case, x=x_there, y=y_there)
        for case in cases
        if (x_there := x(case)) is not None and (y_there := y(case)) is not None
    ]
    blocks: dict[tuple[str | None, ...], dict[str | None, Point]] = defaultdict(dict)
    for point in points:
        blocks[_block(of, point.case)][_unit(of, point.case)] = point
    whole = [[b[unit] for unit in every] for b in blocks.values() if len(b) == len(every)]
    correlation = None
    if len(every) > 1 and whole:
        correlation = spearman(
            np.array([[point.x for point in block] for block in whole]),
            np.array([[point.y for point in block] for block in whole]),
        )
    absent = None
    if correlation is None:
        absent = Absent.SAME if whole else Absent.UNKNOWN
        absent = Absent.ONE if len(every) < 2 else absent
        absent = absent if erm else Absent.NO_ERM
    return Trend(
        of=of,
        points=tuple(points),
        correlation=correlation,
        absent=absent,
        left_out=len({_block(of, case.case) for case in cases})
        - (correlation.blocks if correlation else 0),
    )


def _unit(of: Of, case: TestCase) -> str | None:
    return case.teacher if of is Of.TEACHER else case.student


def _block(of: Of, case: TestCase) -> tuple[str | None, ...]:
    return (case.dataset, case.student if of is Of.TEACHER else case.teacher, case.search)
