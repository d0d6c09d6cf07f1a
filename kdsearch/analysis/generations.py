"""Generations of students, each taught by what the one before it chose (Furlanello et al., 2018).

Born-Again Neural Networks, arXiv 1805.04770, §3: there each generation has one training; here each
has a search of its own, and its choice under the first seed teaches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from kdsearch.agenda import Agenda, CaseView, TestScore
from kdsearch.analysis.cases import CaseResult
from kdsearch.analysis.noise import Noise, Noises
from kdsearch.analysis.scores import TestScores, candidate_on_test, points
from kdsearch.search import ValidationScore
from kdsearch.study import TestCase, cases_before


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What one of a line of test cases chose: means over the seeds."""

    case: TestCase
    number: int
    """1 for the one whose teacher is no student of the study."""
    teacher: TestScore | None
    """What the checkpoint that taught it scores on test."""
    validation: ValidationScore | None
    test: TestScore | None
    over_before: float | None
    """In points on test, over the generation before; None of the first."""
    over_before_noise: Noise | None
    """In points too."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """The generations of one student on one data set, under one search."""

    generations: tuple[Generation, ...]
    digits: int
    """How many decimals the scores are shown with."""


def lines_of(agenda: Agenda, cases: Sequence[CaseResult], noises: Noises) -> tuple[Line, ...]:
    """Every line of the study, as far as it has come; two may have their beginning in common."""
    study = agenda.resolved.study
    results = {case.case: case for case in cases}
    views = {view.case: view for view in agenda.views()}
    before = {case: cases_before(study, case) for case in results}
    inner = {case for found in before.values() for case in found}
    return tuple(
        Line(
            generations=_generations([*reversed(found), last], results, views, agenda, noises),
            digits=results[last].digits,
        )
        for last, found in before.items()
        if found and last not in inner and results.keys() >= {*found}
    )


def _generations(
    line: Sequence[TestCase],
    results: Mapping[TestCase, CaseResult],
    views: Mapping[TestCase, CaseView],
    agenda: Agenda,
    noises: Noises,
) -> tuple[Generation, ...]:
    scores = [_chosen(agenda, views[case]) for case in line]
    found = []
    for number, (case, test) in enumerate(zip(line, scores, strict=True), start=1):
        result, before = results[case], scores[number - 2] if number > 1 else None
        data = agenda.resolved.datasets[case.dataset]
        gain = noise = None
        if test is not None and before is not None:
            gain = points(data.task, test.mean, before.mean)
            noise = noises.of_difference(test, before)
            if noise is not None:
                noise = replace(noise, deviation=points(data.task, noise.deviation, 0.0))
        found.append(
            Generation(
                case=case,
                number=number,
                teacher=result.taught_by.test if result.taught_by else None,
                validation=result.winner.validation if result.winner else None,
                test=test.mean if test else None,
                over_before=gain,
                over_before_noise=noise,
            )
        )
    return tuple(found)


def _chosen(agenda: Agenda, view: CaseView) -> TestScores | None:
    return candidate_on_test(agenda, view, view.progress.winner) if view.traversed else None
