"""What was measured of a test case's models beside their scores; for readers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from kdsearch.agenda import Agenda, CaseView, Measures, Outcome, StudentTraining
from kdsearch.analysis.cases import CaseResult
from kdsearch.study import TestCase

_OF_A_TEACHER = frozenset({"agreement"})
"""Measures of a student against its teacher: not measured where the teacher's outputs are not."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A measure of a model."""

    mean: float
    """Over the seeds: the winner's where each of these has a score, else the search's."""
    spread: float | None
    """The standard deviation between the seeds; None of a single one."""


ByName = Mapping[str, Measured | None]
"""None where it was not measured; absent where it is undefined."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training under its first seed."""

    model: str
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class ModelMeasures:
    """The measures of a student at its best epoch, or of a teacher's checkpoint."""

    model: str
    validation: ByName
    test: ByName


@dataclass(frozen=True, kw_only=True)
class CaseMeasures:
    """What a case chose, its student without a teacher, and its teacher's checkpoints."""

    case: TestCase
    models: tuple[ModelMeasures, ...]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The measures of a model under each seed."""

    model: str
    taught: bool
    validation: tuple[Measures, ...]
    test: tuple[Measures, ...]


def case_measures(agenda: Agenda, cases: Sequence[CaseResult]) -> tuple[CaseMeasures, ...]:
    """The measures of every case; nothing of a study of which nothing was measured."""
    views = agenda.views()
    every = [list(_found(agenda, view, case)) for view, case in zip(views, cases, strict=True)]
    names = dict.fromkeys(
        name
        for models in every
        for found in models
        for measures in (*found.validation, *found.test)
        for name in measures
    )
    if not names:
        return ()
    return tuple(
        CaseMeasures(
            case=view.case,
            models=tuple(
                ModelMeasures(
                    model=found.model,
                    validation=over_seeds(found.validation, tuple(names), found.taught),
                    test=over_seeds(
                        found.test, tuple(names), found.taught, _further(agenda, view.case)
                    ),
                )
                for found in models
            ),
        )
        for view, models in zip(views, every, strict=True)
    )


def measured_runs(agenda: Agenda, view: CaseView, case: CaseResult) -> tuple[Run, ...]:
    """The trainings of those models that were measured along the way."""
    keys = {name: key for name, key in _students(case) if key is not None}
    if view.teacher_training is not None:
        keys["teacher"] = view.teacher_training.key
    return tuple(
        Run(model=name, outcome=outcome)
        for name, key in keys.items()
        if (outcome := agenda.results.get(key)) is not None
        and (outcome.curve is not None or any(epoch.measures for epoch in outcome.epochs))
    )


def _students(case: CaseResult) -> Iterator[tuple[str, str | None]]:
    if case.winner is not None:
        yield "student, as chosen", case.winner.key
    if case.erm is not None:
        yield "student, no teacher (ERM)", case.erm.key


def _found(agenda: Agenda, view: CaseView, case: CaseResult) -> Iterator[_Found]:
    for name, key in _students(case):
        if key is not None:
            yield _student(agenda, name, key)
    for checkpoint, outputs in view.outputs.items():
        by_split = {training.split: agenda.results.get(training.key) for training in outputs}
        validation, test = by_split["validation"], by_split["test"]
        yield _Found(
            model=f"teacher {checkpoint}",
            taught=False,
            validation=(validation.measures if validation else {},),
            test=(test.measures if test else {},),
        )


def _student(agenda: Agenda, name: str, key: str) -> _Found:
    first = agenda.results[key]
    assert first is not None
    training, study = first.training, agenda.resolved.study
    assert isinstance(training, StudentTraining)
    outcomes = _scored(agenda, training.under(study.winner_seeds or ()))
    outcomes = outcomes or _scored(agenda, training.under(study.student_seeds))
    return _Found(
        model=name,
        taught=training.teaching is not None,
        validation=tuple(map(_at_best_epoch, outcomes)),
        test=tuple(outcome.measures for outcome in outcomes),
    )


def _scored(agenda: Agenda, trainings: Sequence[StudentTraining]) -> list[Outcome]:
    """Their outcomes; none where one has no score."""
    outcomes = [agenda.results.get(training.key) for training in trainings]
    scored = [o for o in outcomes if o is not None and o.state == "scored"]
    return scored if len(scored) == len(outcomes) else []


def _at_best_epoch(outcome: Outcome) -> Measures:
    found = (each.measures for each in outcome.epochs if each.epoch == outcome.best_epoch)
    return next(found, {})


def _further(agenda: Agenda, case: TestCase) -> tuple[str, ...]:
    return agenda.resolved.datasets[case.dataset].also


def over_seeds(
    seeds: Sequence[Measures], names: Sequence[str], taught: bool, further: Sequence[str] = ()
) -> ByName:
    """Measures under each seed, by their `names`; whether it was `taught` has to be known.

    Those of `further` metrics are never undefined.
    """
    found: dict[str, Measured | None] = {}
    for name in names:
        values = [measures[name] for measures in seeds if name in measures]
        if len(values) == len(seeds):
            spread = stdev(values) if len(values) > 1 else None
            found[name] = Measured(mean=fmean(values), spread=spread)
        elif not all(seeds) or (taught and name in _OF_A_TEACHER) or name in further:
            found[name] = None
    return found
