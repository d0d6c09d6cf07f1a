"""The practitioner's answer: whether distilling was worth it, what was kept, and what it took."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from math import fsum
from statistics import median

from kdsearch.agenda import Agenda, CaseView, TestScore
from kdsearch.analysis.cases import CaseResult, State, TeacherScore
from kdsearch.analysis.cost import Spent
from kdsearch.analysis.erm import Erm, tuned_erm
from kdsearch.analysis.noise import DEVIATIONS, Noises
from kdsearch.analysis.scores import on_test, points, row_worth
from kdsearch.analysis.speeds import Size
from kdsearch.search import Choice, Trial, ValidationScore, best_trial
from kdsearch.study import TestCase


class Verdict(StrEnum):
    """A student against the same one trained on the labels alone, on test."""

    BETTER = "better"
    WORSE = "worse"
    WITHIN_NOISE = "within the noise"
    EQUAL = "equal"


class Take(StrEnum):
    """Which student validation is for."""

    CHOSEN = "chosen"
    """What the case's search chose."""
    ERM = "erm"
    """The one trained on the labels alone."""
    BEST_SO_FAR = "best so far"
    """The best of those trained, of a search that is not finished."""


@dataclass(frozen=True, kw_only=True)
class CaseAnswer:
    """A test case's student, beside the one without a teacher and beside its teacher."""

    case: TestCase
    state: State
    so_far: bool
    """Whether its search goes on: the student is the best so far by validation."""
    at_floor: bool
    digits: int
    """How many decimals its scores are shown with."""
    choice: Choice | None
    """Of a finished search; None where nothing has a score."""
    trained_as: str | None
    """The choice at the values that were tuned under it, of either."""
    trials: int
    """That the student is the best of."""
    validation: ValidationScore | None
    test: TestScore | None
    spread: float | None
    """The standard deviation of the test score between the seeds; None of a single one."""
    erm_trials: int
    """That the student without a teacher is the best of; 0 where there is none."""
    erm_validation: ValidationScore | None
    erm_test: TestScore | None
    erm_spread: float | None
    verdict: Verdict | None
    """None where a side has no test score."""
    points: float | None
    """The student's test score less that of the one without a teacher, in points of 100."""
    noise: float | None
    """The standard deviation of the points; None where it is not known."""
    kept: float | None
    """The student's test score as a share of its teacher's; None of a teacher at less than what
    one row is worth."""
    kept_points: float | None
    """The student's test score less its teacher's, in points of 100."""
    size: float | None
    """Its parameters as a share of its teacher's."""
    bytes: int | None
    """Of its weights."""
    speed: float | None
    """Its examples per second as a multiple of its teacher's."""
    seconds: float
    """Of the case's trainings; one that cases share counts in each."""
    trainings: int
    take: Take | None
    """None where there is no student."""

    @property
    def counts(self) -> bool:
        """Whether it is one of the cases that say whether distilling is better: not at the floor,
        where no score says anything, and with a teacher."""
        return self.points is not None and not self.at_floor and self.case.teacher is not None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the study says to who wants a student."""

    cases: tuple[CaseAnswer, ...]
    """Without those of students on the labels alone, which stand beside others."""
    has_erm: bool
    """Whether the study trains students on the labels alone."""
    compared: int
    """In so many cases the distilled student and the one without a teacher have a test score,
    above the floor."""
    verdicts: dict[Verdict, int]
    """Of these cases; one that does not occur is absent."""
    points: float | None
    """The median over them."""
    least_points: float | None
    least_case: TestCase | None
    """The case that has the least."""
    kept: float | None
    """The median over all cases that have one; so are the next two."""
    size: float | None
    speed: float | None
    seconds: float
    """Of all trainings of the study, each once."""
    trainings: int


def answer_of(
    agenda: Agenda, results: Sequence[CaseResult], cost: Iterable[Spent], noises: Noises
) -> Answer:
    """What follows from the cases of a study, and from its `cost`, for who wants a student."""
    cost = tuple(cost)
    erm = {result.case for result in results if _is_erm(agenda, result.case)}
    beside = {(r.case.dataset, r.case.student) for r in results if r.case not in erm}
    cases = tuple(
        _case(agenda, view, result, noises)
        for view, result in zip(agenda.views(), results, strict=True)
        if view.case not in erm or (view.case.dataset, view.case.student) not in beside
    )
    compared = [case for case in cases if case.counts]
    taught = [case for case in cases if case.case.teacher is not None and not case.at_floor]
    least = min(compared, key=lambda case: case.points or 0.0, default=None)
    verdicts = [case.verdict for case in compared]
    return Answer(
        cases=cases,
        has_erm=any(agenda.without_teacher(result.case) is not None for result in results),
        compared=len(compared),
        verdicts={each: n for each in Verdict if (n := verdicts.count(each))},
        points=_median(case.points for case in compared),
        least_points=least.points if least else None,
        least_case=least.case if least else None,
        kept=_median(case.kept for case in taught),
        size=_median(case.size for case in taught),
        speed=_median(case.speed for case in taught),
        seconds=fsum(each.seconds for each in cost),
        trainings=sum(each.trainings for each in cost),
    )


def _is_erm(agenda: Agenda, case: TestCase) -> bool:
    """Whether it is the student trained on the labels alone that others are compared with."""
    view = agenda.without_teacher(case)
    return view is not None and view.case == case


def _median(values: Iterable[float | None]) -> float | None:
    return median(known) if (known := [each for each in values if each is not None]) else None


def _case(agenda: Agenda, view: CaseView, result: CaseResult, noises: Noises) -> CaseAnswer:
    data = agenda.resolved.datasets[view.case.dataset]
    scored = agenda.scored(view)
    if view.traversed:
        mine = {trial for each in view.progress.candidates() for trial in each.trials}
        scored = {trial: score for trial, score in scored.items() if trial in mine}
    best = view.chosen if view.traversed else best_trial(scored, scored)
    found = on_test(agenda, agenda.trainings(view, best)) if best else None
    validation = scored[best] if best else None
    erm = tuned_erm(agenda, view)
    plain = erm.on_test if erm else None
    difference, noise = None, None
    if found is not None and plain is not None:
        difference = points(data.task, found.mean, plain.mean)
        relative = noises.of_gain(found, plain) if plain.mean > 0 else None
        noise = points(data.task, relative.deviation * plain.mean, 0) if relative else None
    teacher = _teacher(result, best)
    kept = None
    if found is not None and teacher is not None and teacher.test is not None:
        kept = points(data.task, found.mean, teacher.test)
    return CaseAnswer(
        case=view.case,
        state=result.state,
        so_far=not view.traversed,
        at_floor=result.at_floor is not None,
        digits=result.digits,
        choice=result.winner.choice if result.winner and best else None,
        trained_as=str(best) if best else None,
        trials=len({agenda.training(view, trial).key for trial in scored}),
        validation=validation,
        test=found.mean if found else None,
        spread=found.spread if found else None,
        erm_trials=erm.trials // len(agenda.resolved.study.student_seeds) if erm else 0,
        erm_validation=erm.validation if erm else None,
        erm_test=erm.test if erm else None,
        erm_spread=erm.spread if erm else None,
        verdict=verdict(difference, noise),
        points=difference,
        noise=noise,
        kept=_share(
            found.mean if found else None,
            teacher.test if teacher else None,
            least=row_worth(agenda, view) * (1 - 1e-9),
        ),
        kept_points=kept,
        bytes=result.size.bytes if result.size else None,
        size=_ratio(result.size, teacher, lambda size: size.parameters),
        speed=_ratio(result.size, teacher, lambda size: size.examples_per_second),
        seconds=fsum(each.seconds for each in result.cost),
        trainings=sum(each.trainings for each in result.cost),
        take=_take(view, validation, erm),
    )


def verdict(difference: float | None, noise: float | None) -> Verdict | None:
    """Of a difference in points and its noise, which may not be known."""
    if difference is None:
        return None
    if difference == 0:
        return Verdict.EQUAL
    if noise is not None and abs(difference) < DEVIATIONS * noise:
        return Verdict.WITHIN_NOISE
    return Verdict.BETTER if difference > 0 else Verdict.WORSE


def _take(view: CaseView, validation: float | None, erm: Erm | None) -> Take | None:
    """By validation; of equal scores what was searched for."""
    plain = erm.validation if erm else None
    waits = not view.traversed and view.blocked is None
    if validation is None:
        return Take.ERM if plain is not None and not waits else None
    if plain is not None and plain > validation:
        return Take.ERM
    return Take.CHOSEN if view.traversed else Take.BEST_SO_FAR


def _teacher(result: CaseResult, best: Trial | None) -> TeacherScore | None:
    """The checkpoint that taught; of a student that is not there yet, any."""
    found = (t for t in result.teachers if best is None or t.checkpoint is best.checkpoint)
    return next(found, None)


def _share(part: float | None, whole: float | None, *, least: float = 0.0) -> float | None:
    if part is None or not whole or whole < least:
        return None
    return part / whole


def _ratio(
    student: Size | None, teacher: TeacherScore | None, of: Callable[[Size], float | None]
) -> float | None:
    if student is None or teacher is None or teacher.size is None:
        return None
    return _share(of(student), of(teacher.size))
